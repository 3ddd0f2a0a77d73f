"""Programs out of Debian's and Ubuntu's packages without installing them: nothing is started, configured, or left on the machine."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from course_lib import shell
from course_lib.errors import CourseError
from course_lib.host.packages import next_suite
from course_lib.settings import CHECKOUT

CACHE = CHECKOUT / ".cache" / "packages"
_FOLDERS = ("usr/bin", "usr/sbin", "bin", "sbin")


def program(package: str, name: str, *, says_version: str = "--version", installed: bool = True) -> Path:
    """A program of a package: the machine's own where it is installed, else one unpacked below `.cache`.

    A package that starts a service when it is installed (nginx, Alertmanager) can be used this way without that. Only what
    the program itself needs has to be here: its package's dependencies are not unpacked.

    Args:
        package: the package's name, such as `prometheus-alertmanager`.
        name: the program's, such as `amtool`.
        says_version: the argument with which it ends at once and well; the newest that does runs on this machine.
        installed: the machine's own will do, where there is one.

    Raises:
        CourseError: no apt here, no such package, or none that runs on this machine.
    """
    if installed and (found := shutil.which(name)):
        return Path(found)
    folder = CACHE / package
    if not (folder / ".complete").exists():
        _unpack(package, name, says_version, folder)
    return _find(folder, name)


def _unpack(package: str, name: str, says_version: str, folder: Path) -> None:
    do = f"Install {package} yourself, or leave out what needs it."
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        raise CourseError(f"{name} is not here, and there is no apt to get {package} with", do=do)
    following = next_suite()
    wanted = [*([f"{package}/{following}"] if following else []), package]
    failures = []
    for source in wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        try:
            _download(source, folder)
            for archive in folder.glob("*.deb"):
                shell.run(["dpkg", "-x", str(archive), str(folder)], show=False)
                archive.unlink()
            shell.run([str(_find(folder, name)), says_version], show=False, timeout=30)
        except CourseError as error:
            failures.append(f"{source}: {error.why.splitlines()[-1] if error.why else error}")
            continue
        (folder / ".complete").touch()
        return
    shutil.rmtree(folder, ignore_errors=True)
    raise CourseError(f"{name} could not be had from {package}", why="\n".join(failures), do=do)


def _download(source: str, folder: Path) -> None:
    """One .deb into the folder. Lists that are old or were never fetched are fetched once, where that may be done."""
    download = ["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", source]
    try:
        shell.run(download, show=False, cwd=folder, timeout=120)
    except shell.CommandError:
        if os.geteuid() != 0:
            raise
        shell.run(["apt-get", "-qq", "update"], show=False, check=False, timeout=300)
        shell.run(download, show=False, cwd=folder, timeout=120)


def _find(folder: Path, name: str) -> Path:
    found = [folder / place / name for place in _FOLDERS if (folder / place / name).is_file()]
    if not found:
        raise CourseError(f"{folder.name} has no program {name}", do="Look with `dpkg -c` what the package holds.")
    return found[0]
