"""Programs from their publishers' releases: one file, pinned by version and SHA-256, kept below `.cache`."""

from __future__ import annotations

import hashlib
import platform
import ssl
import tomllib
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile

import httpx

from course_lib import shell
from course_lib.errors import CourseError
from course_lib.settings import CHECKOUT, settings

CACHE = CHECKOUT / ".cache" / "releases"
_ARCHITECTURES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


@dataclass(frozen=True)
class Release:
    """One program's release.

    Args:
        url: with `{version}`, `{os}` and `{arch}` in it.
        sha256: digest by `os-arch`, as in `linux-arm64`.
    """

    name: str
    version: str
    url: str
    sha256: dict[str, str]

    @classmethod
    def read(cls, file: Path, name: str) -> Release:
        """A table of a TOML file."""
        found = tomllib.loads(file.read_text())[name]
        return cls(name, found["version"], found["url"], found["sha256"])


def this_platform() -> tuple[str, str]:
    """(os, architecture) as releases spell them."""
    machine = platform.machine().lower()
    return platform.system().lower(), _ARCHITECTURES.get(machine, machine)


def program(release: Release) -> Path:
    """The program, fetched where it is not in the cache.

    Raises:
        CourseError: there is none for this machine, it can't be fetched, or it is not the file that was pinned.
    """
    system, machine = this_platform()
    wanted = release.sha256.get(f"{system}-{machine}")
    do = f"Install {release.name} {release.version} or newer yourself, so that it is on PATH."
    if wanted is None:
        raise CourseError(f"there is no pinned release of {release.name} for {system} on {machine}", do=do)
    path = CACHE / f"{release.name}-{release.version}" / release.name
    if path.exists():
        return path
    url = release.url.format(version=release.version, os=system, arch=machine)
    shell.announce(f"curl --location --output {path.relative_to(CHECKOUT)} {url}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as half:
        try:
            digest = _fetch(url, half.name)
            if digest != wanted:
                raise CourseError(
                    f"what {url} gave is not {release.name} {release.version}",
                    why=f"Its SHA-256 is {digest}, and {wanted} is pinned. Something between here and there may replace downloads.",
                    do=do,
                )
            Path(half.name).chmod(0o755)
            Path(half.name).rename(path)
        except httpx.HTTPError as error:
            raise CourseError(
                f"{release.name} could not be fetched", why=f"{url}: {error or type(error).__name__}", do=do
            ) from None
        finally:
            Path(half.name).unlink(missing_ok=True)
    return path


def _fetch(url: str, target: str) -> str:
    """Writes what an address gives into a file; returns its SHA-256."""
    digest = hashlib.sha256()
    trusted = ssl.create_default_context(cafile=settings().ca_bundle)
    with (
        httpx.Client(verify=trusted, follow_redirects=True, timeout=httpx.Timeout(60, connect=5)) as client,
        client.stream("GET", url) as answer,
        Path(target).open("wb") as file,
    ):
        answer.raise_for_status()
        for part in answer.iter_bytes():
            file.write(part)
            digest.update(part)
    return digest.hexdigest()
