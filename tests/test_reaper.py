"""What a session made is gone after it, however it ended, and nothing else is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import nbformat
import papermill
import pytest

from course_lib import cleanup, ledger, reaper, shell, waits
from course_lib.images import buildkit
from course_lib.ledger import Row, Session

pytestmark = pytest.mark.docker

#: What a notebook does: it makes one of each thing and says so.
MAKES = """
import os
from course_lib import ledger, shell
name = {name!r}
for kind, command in (("network", ["docker", "network", "create"]), ("volume", ["docker", "volume", "create"])):
    ledger.write_down(kind, name)
    shell.run([*command, *ledger.label_arguments(), name])
ledger.write_down("container", name)
shell.run(["docker", "run", "-d", "--name", name, *ledger.label_arguments(), {image!r}, "sleep", "600"])
"""


def there(name: str) -> set[str]:
    return {kind for kind in ("container", "network", "volume") if reaper.exists(kind, name)}


def wait_until_gone(name: str) -> None:
    def gone() -> None:
        if left := there(name):
            raise waits.NotYet(f"{left} of {name}")

    waits.until(gone, what=f"{name} to be reaped", timeout=120)


@pytest.fixture
def name(fresh_state: Path, container_names: list[str]) -> str:
    made = f"course-test-{os.urandom(4).hex()}"
    container_names.append(made)
    return made


def notebook(folder: Path, source: str) -> Path:
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = folder / "makes.ipynb"
    nbformat.write(made, path)
    return path


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, None], ids=["kill -9", "SIGTERM", "its own end"])
def test_a_process_that_ends(name: str, small_image: str, how: signal.Signals | None) -> None:
    source = MAKES.format(name=name, image=small_image) + "\nprint('made', flush=True)\n"
    source += "import time; time.sleep(600)" if how else ""
    process = subprocess.Popen([sys.executable, "-c", source], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "made\n"
    assert how is None or there(name) == {"container", "network", "volume"}
    if how:
        process.send_signal(how)
    process.wait(20)
    wait_until_gone(name)
    waits.until(_no_rows, what="the rows to be struck", timeout=120)


def _no_rows() -> None:
    if rows := ledger.rows():
        raise waits.NotYet(str(rows))


def test_papermill_that_fails(name: str, small_image: str, tmp_path: Path) -> None:
    path = notebook(tmp_path, MAKES.format(name=name, image=small_image) + "\nraise ValueError('in the middle')")
    with pytest.raises(papermill.exceptions.PapermillExecutionError):
        papermill.execute_notebook(path, tmp_path / "out.ipynb", progress_bar=False)
    wait_until_gone(name)


def test_nbval_that_kills_its_kernel(name: str, small_image: str, tmp_path: Path) -> None:
    path = notebook(tmp_path, MAKES.format(name=name, image=small_image))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--nbval-lax", "-q", "-p", "no:cacheprovider", "-c", "/dev/null", str(path)],
        capture_output=True,
        text=True,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    wait_until_gone(name)


def test_a_kernel_that_is_restarted(name: str, small_image: str) -> None:
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel()
    try:
        client.execute_interactive(MAKES.format(name=name, image=small_image), timeout=300)
        assert there(name) == {"container", "network", "volume"}
        manager.restart_kernel(now=False)
        wait_until_gone(name)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_a_build_that_outlives_its_session_leaves_no_image(fresh_state: Path, small_image: str, tmp_path: Path) -> None:
    tag = f"course-test-{os.urandom(4).hex()}:1"
    (tmp_path / "Dockerfile").write_text(f"FROM {small_image}\nRUN sleep 15 && echo {tag} > /file\n")
    source = textwrap.dedent(f"""
        from pathlib import Path
        from course_lib.images import buildkit
        buildkit.build(Path({str(tmp_path)!r}), tag={tag!r})
    """)
    process = subprocess.Popen([sys.executable, "-c", source])
    waits.until(_has_row(tag), what="the build to begin", timeout=60)
    session = ledger.rows()[0].session

    def client_runs() -> None:
        if not reaper.orphans(session):
            raise waits.NotYet("no child runs")

    waits.until(client_runs, what="the build's client, which runs as a child", timeout=60)
    time.sleep(1)
    process.kill()
    process.wait()
    waits.until(_no_rows, what="the reaper", timeout=60)
    assert not reaper.exists("image", tag)
    assert not reaper.orphans(session)
    time.sleep(15)
    assert not reaper.exists("image", tag), "the engine went on building after the client was gone"


def _has_row(name: str):  # type: ignore[no-untyped-def]
    def probe() -> None:
        if not any(row.name == name for row in ledger.rows()):
            raise waits.NotYet("no row")

    return probe


def test_only_what_the_course_made_is_touched(name: str, small_image: str) -> None:
    shell.run(["docker", "run", "-d", "--name", name, small_image, "sleep", "600"])
    ledger.write_down("container", name + "-never-made")
    cleanup.clean(everything=False)
    reaper.clean_up_after(Session(2**22 + 7, "1"))
    assert there(name) == {"container"}


def test_labels_alone_are_enough(name: str, small_image: str) -> None:
    """The ledger is gone, and the session: a label says whose it was."""
    dead = Session(2**22 + 9, "1")
    marks = [f"--label={ledger.LABEL}.lifetime=run", f"--label={ledger.LABEL}.session={dead.id}"]
    shell.run(["docker", "run", "-d", "--name", name, *marks, small_image, "sleep", "600"])
    found = cleanup.survey()
    assert ("container", name) in found.left
    after = cleanup.clean()
    assert ("container", name) in after.removed and ("container", name) not in after.left
    assert there(name) == set()


def test_a_thing_in_use_is_reported_and_left_alone(name: str, small_image: str) -> None:
    ledger.write_down("container", name)
    shell.run(["docker", "run", "-d", "--name", name, *ledger.label_arguments(), small_image, "sleep", "600"])
    found = cleanup.clean()
    assert ("container", name) in found.in_use and ("container", name) not in found.left
    assert there(name) == {"container"}


def test_what_sessions_share_is_listed_once(fresh_state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each session writes a kept thing down for itself."""
    for session in (Session(2**22 + 9, "1"), Session(2**22 + 9, "2")):
        monkeypatch.setattr(Session, "current", classmethod(lambda cls, one=session: one))
        ledger.write_down("folder", str(tmp_path), "kept")
    assert len(ledger.rows(lifetime="kept")) == 2
    assert [name for kind, name, _ in cleanup.survey().kept if kind == "folder"] == [str(tmp_path)]


def test_a_process_row_ends_exactly_that_process(fresh_state: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    me = Session.of(child.pid)
    assert not reaper.exists("process", Session(child.pid, "5").id), "another process with the same number"
    assert reaper.exists("process", me.id)
    assert reaper.remove(Row("process", me.id, "run", "", me))
    assert not me.alive


def test_a_container_somebody_starts_from_a_course_image_is_theirs(name: str, small_image: str) -> None:
    """It inherits the image's labels; they must not make it the course's."""
    shell.run(["docker", "run", "-d", "--name", name, small_image, "sleep", "600"])
    assert ("container", name) not in cleanup.survey().left
    cleanup.clean()
    assert there(name) == {"container"}


def test_an_image_that_somebody_builds_on_a_course_image_is_theirs(name: str, small_image: str, tmp_path: Path) -> None:
    """Labels are inherited by what is built on an image, and by its other tags; neither makes them the course's."""
    (tmp_path / "Dockerfile").write_text(f"FROM {small_image}\nRUN echo mine > /mine\n")
    ours, child, extra = f"{name}:ours", f"{name}:child", f"{name}:extra"
    buildkit.build(tmp_path, tag=ours)
    try:
        (tmp_path / "Dockerfile").write_text(f"FROM {ours}\nRUN echo more > /more\n")
        shell.run(["docker", "build", "--quiet", "--tag", child, str(tmp_path)])
        shell.run(["docker", "tag", ours, extra])
        mine = reaper.labelled(lifetime="run", session=Session.current().id)
        assert ("image", ours) in mine and ("image", child) not in mine and ("image", extra) not in mine
    finally:
        shell.run(["docker", "image", "rm", ours, child, extra], check=False)


def test_a_session_of_another_host_is_left_alone(name: str, small_image: str) -> None:
    there_it_lives = Session(2**22 + 11, "1", host="elsewhere")
    marks = [f"--label={ledger.LABEL}.lifetime=run", f"--label={ledger.LABEL}.session={there_it_lives.id}"]
    shell.run(["docker", "run", "-d", "--name", name, *marks, small_image, "sleep", "600"])
    assert there_it_lives.alive
    cleanup.clean()
    assert there(name) == {"container"}
