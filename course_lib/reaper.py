"""Removes what a session left, however the session ended.

Exit handlers get about three seconds under papermill and none under nbval, so a detached process does it: it watches the
session's process, and when that is gone it ends children that were still working for it and removes its *run* objects.
It touches only what the ledger or a label says the course made.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import psutil

from course_lib import kube_rows, ledger, shell
from course_lib.errors import CourseError
from course_lib.ledger import Row, Session, label_prefix

#: Containers hold networks, volumes and images, so they go first; processes might still make containers, so before them. What is on
#: a cluster goes before the containers that may be that cluster's nodes.
_ORDER = {
    "process": 0, "namespace": 1, "cordon": 1, "container": 2, "network": 3, "volume": 4, "image": 5, "folder": 6, "sysctl": 7,
}  # fmt: skip
_ON_A_CLUSTER = ("namespace", "cordon")

_REMOVE = {
    "container": ("docker", "rm", "--force", "--volumes"),
    "network": ("docker", "network", "rm"),
    "volume": ("docker", "volume", "rm", "--force"),
    "image": ("docker", "image", "rm", "--force"),
}
_LIST = {
    "container": ("docker", "ps", "--all", "--format={{.Names}}"),
    "network": ("docker", "network", "ls", "--format={{.Name}}"),
    "volume": ("docker", "volume", "ls", "--format={{.Name}}"),
    "image": ("docker", "image", "ls", "--quiet", "--no-trunc"),
}
_EXISTS = {
    "container": ("docker", "container", "inspect", "--format=1"),
    "network": ("docker", "network", "inspect", "--format=1"),
    "volume": ("docker", "volume", "inspect", "--format=1"),
    "image": ("docker", "image", "inspect", "--format=1"),
}


def engine_answers() -> bool:
    """Whether a Docker engine can be asked at all."""
    return shell.succeeds(["docker", "version", "--format={{.Server.Version}}"])


def exists(kind: str, name: str) -> bool:
    """Whether the thing a row speaks of is there.

    Raises:
        CourseError: the engine, or the cluster, can't be asked, so nobody knows.
    """
    if kind == "folder":
        return Path(name).exists()
    if kind == "process":
        return Session.parse(name).alive
    if kind == "sysctl":
        key, value = _setting(name)
        return sysctl(key) not in ("", value) and os.access(_sysctl_file(key), os.W_OK)
    if kind in _ON_A_CLUSTER:
        return kube_rows.exists(kind, name)
    asked = shell.run([*_EXISTS[kind], name], show=False, check=False, timeout=30)
    if asked.stdout.strip() == "1":
        return True
    if _says_gone(asked):
        return False
    raise CourseError(
        f"the Docker engine did not say whether {kind} {name} is there",
        why=asked.stderr,
        do="Start Docker and run `course cleanup` again.",
    )


def _says_gone(asked: shell.Completed) -> bool:
    return "no such" in asked.stderr.lower() or "not found" in asked.stderr.lower()


def remove(row: Row) -> bool:
    """Removes one thing and strikes its row once it is seen to be gone; says whether it is."""
    try:
        if row.kind == "folder":
            shutil.rmtree(row.name, ignore_errors=True)
        elif row.kind == "process":
            _end(Session.parse(row.name))
        elif row.kind == "sysctl":
            return _put_back(row.name)
        elif exists(row.kind, row.name):
            if row.kind in _ON_A_CLUSTER:
                kube_rows.remove(row.kind, row.name)
            else:
                shell.run([*_REMOVE[row.kind], row.name], show=False, check=False, timeout=60)
        if exists(row.kind, row.name) and not _goes(row):
            return False
    except CourseError:
        return False
    ledger.strike(row.kind, row.name)
    return True


def _goes(row: Row) -> bool:
    """Whether an engine's object is gone a moment later: somebody else removes it, or it was slow to end."""
    if row.kind not in _REMOVE:
        return False
    for _ in range(3):
        time.sleep(0.5)
        shell.run([*_REMOVE[row.kind], row.name], show=False, check=False, timeout=60)
        if not exists(row.kind, row.name):
            return True
    return False


def sysctl(key: str) -> str:
    """The value of a kernel setting of this machine; empty where it has none of that name."""
    try:
        return _sysctl_file(key).read_text().strip()
    except OSError:
        return ""


def _sysctl_file(key: str) -> Path:
    return Path("/proc/sys", *key.split("."))


def sysctl_rows(key: str) -> list[Row]:
    """The rows of all sessions that a kernel setting was changed for, the oldest first."""
    return [row for row in ledger.rows() if row.kind == "sysctl" and _setting(row.name)[0] == key]


def _setting(name: str) -> tuple[str, str]:
    """(key, value before) of a row's name, `key=value for whom`."""
    key, _, rest = name.partition("=")
    return key, rest.partition(" ")[0]


def _put_back(name: str) -> bool:
    """Gives a kernel setting the value it had before, once nobody else needs the new one; only root may."""
    ledger.strike("sysctl", name)
    key, value = _setting(name)
    if not sysctl_rows(key):
        with contextlib.suppress(OSError):
            _sysctl_file(key).write_text(value)
    return True


def remove_all(rows: Iterable[Row]) -> list[Row]:
    """Removes several, in an order in which none holds another; returns those that are still there."""
    return [row for row in sorted(rows, key=lambda r: _ORDER[r.kind]) if not remove(row)]


def labelled(**marks: str) -> list[tuple[str, str]]:
    """(kind, name) of the engine's objects that carry all these labels of ours; empty when no engine answers."""
    found: list[tuple[str, str]] = []
    for kind, command in _LIST.items():
        filters = [f"--filter=label={label_prefix(kind)}.{key}={value}" for key, value in marks.items()]
        try:
            listed = shell.run([*command, *filters], show=False, timeout=30).output.split()
        except CourseError:
            return []
        found += [(kind, name) for name in (_own_tags(listed) if kind == "image" else listed)]
    return found


def _own_tags(ids: list[str]) -> list[str]:
    """The tags that the course itself gave to images with its labels.

    Whoever builds on a course image, or tags it again, inherits the labels; the label that repeats the tag tells the two
    apart, and theirs are not touched.
    """
    if not ids:
        return []
    wanted = f'{{{{index .Config.Labels "{label_prefix("image")}.reference"}}}} {{{{join .RepoTags " "}}}}'
    said = shell.run(["docker", "image", "inspect", f"--format={wanted}", *sorted(set(ids))], show=False, check=False)
    lines = [line.split() for line in said.stdout.splitlines()]
    return [line[0] for line in lines if len(line) > 1 and line[0] in line[1:]]


def of_living_session(kind: str, name: str) -> bool:
    """Whether the session that an object's label names still runs; one that can't be read counts as running.

    So does one of an object that is gone since it was listed: nothing is left of it.
    """
    labels = ".Labels" if kind in ("network", "volume") else ".Config.Labels"
    wanted = f'{{{{index {labels} "{label_prefix(kind)}.session"}}}}'
    asked = shell.run(["docker", kind, "inspect", f"--format={wanted}", name], show=False, check=False)
    if _says_gone(asked):
        return True
    try:
        return Session.parse(asked.output).alive
    except ValueError:
        return bool(asked.output)  # written by another version of the course: not ours to judge


def dispose(kind: str, name: str) -> bool:
    """Removes a thing of this session and strikes its row, if it is seen to be gone."""
    return remove(Row(kind, name, "run", "", Session.current()))


def left_by(session: Session) -> list[Row]:
    """A session's *run* objects, by ledger and by label."""
    known: dict[tuple[str, str], Row] = {
        (row.kind, row.name): row for row in ledger.rows(lifetime="run", session=session)
    }
    for kind, name in labelled(session=session.id, lifetime="run"):
        if (kind, name) not in known:
            known[kind, name] = Row(kind, name, "run", "", session)
    return list(known.values())


def orphans(session: Session) -> list[psutil.Process]:
    """Processes that were started for a session and outlived it: a `docker build`, say, that would still tag its image."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.environ().get(shell.SESSION_VARIABLE) == session.id:
                found.append(process)
        except psutil.Error:
            continue
    return found


def clean_up_after(session: Session) -> list[Row]:
    """Ends a dead session's children and removes its objects; returns what could not be removed."""
    children = [child for child in orphans(session) if child.pid != session.pid]
    for child in children:
        _signal(child)
    psutil.wait_procs(children, timeout=5)
    left = remove_all(left_by(session))
    for _ in range(4):  # the engine may still finish what a killed client had asked for
        if not left and not left_by(session):
            break
        time.sleep(0.5)
        left = remove_all(left_by(session))
    return left


def _signal(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.Error):
        process.kill()


def _end(process: Session) -> None:
    """Ends exactly the process that was written down, never another that got its number."""
    if not process.alive:
        return
    handle = psutil.Process(process.pid)
    try:
        handle.terminate()
        handle.wait(10)
    except psutil.TimeoutExpired:
        _signal(handle)
    except psutil.NoSuchProcess:
        pass


def main() -> None:
    session = Session.parse(sys.argv[1])
    while session.alive:
        time.sleep(0.3)
    left = clean_up_after(session)
    said = ", ".join(f"{row.kind} {row.name}" for row in left) or "nothing"
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} session {session.id} ended; left: {said}", flush=True)


if __name__ == "__main__":
    main()
