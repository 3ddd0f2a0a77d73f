"""A registry of one's own: a container on a free loopback port, to push to, to read digests from, to pull by digest."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import httpx

from course_lib import ledger, shell, waits
from course_lib.errors import CourseError
from course_lib.images import bases, buildkit, containers, pins, platforms
from course_lib.lab.steps import record
from course_lib.settings import CHECKOUT

_RECIPE = CHECKOUT / "docker" / "base"


@dataclass(frozen=True)
class Registry:
    """A registry that answers now."""

    address: str
    """host:port, as it stands before an image's name."""
    container: containers.Container

    def push(self, image: str, name: str, *, platform: str | None = None) -> str:
        """Tags an image for this registry, pushes it, and returns its reference by digest.

        Args:
            name: repository and tag, such as inference-server:0.1.0.
            platform: where it will run; an image of another platform is refused before it is pushed.

        Raises:
            CourseError: wrong platform, or the registry refused.
        """
        if platform is not None:
            platforms.require(image, platform)
        reference = f"{self.address}/{name}"
        ledger.write_down("image", reference)
        shell.run(["docker", "tag", image, reference])
        pushed = shell.run(["docker", "push", reference], timeout=600)
        found = re.search(r"digest: (sha256:[0-9a-f]{64})", pushed.stdout)
        if found is None:
            raise CourseError(f"pushing {reference} gave no digest", why=pushed.stdout[-500:])
        digest = found.group(1)
        record("registry.pushed", "registry", reference, digest=digest)
        return f"{reference.rpartition(':')[0]}@{digest}"

    def digest(self, name: str) -> str:
        """The digest that a tag has in this registry now.

        Raises:
            CourseError: it has no such repository or tag.
        """
        repository, _, tag = name.partition(":")
        accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
        answer = httpx.head(
            f"http://{self.address}/v2/{repository}/manifests/{tag}",
            headers={"Accept": accept},
            timeout=30,
            trust_env=False,
        )
        if answer.status_code != 200:
            raise CourseError(
                f"the registry has no {name}", why=f"It answered {answer.status_code}.", do="Push it first."
            )
        return answer.headers["Docker-Content-Digest"]


@contextmanager
def running(name: str = "registry", *, options: Sequence[str] = ()) -> Iterator[Registry]:
    """A registry for the length of the block.

    Args:
        options: further options of `docker run`, such as a network where others find it, too.
    """
    with containers.running(ensure_image(), name, port=5000, options=options) as container:
        address = f"127.0.0.1:{container.port}"

        def answers() -> None:
            try:
                status = httpx.get(f"http://{address}/v2/").status_code
            except httpx.HTTPError as error:
                raise waits.NotYet(str(error)) from None
            if status != 200:
                raise waits.NotYet(f"status {status}")

        waits.until(answers, what="the registry to answer", timeout=30, diagnose=container.logs)
        yield Registry(address, container)


def ensure_image() -> str:
    """The registry's image: the official one, or Debian's package in a base of ours (*kept*)."""
    found = bases.ensure()
    if found.source == "registry":
        return bases.pull(pins.load()["registry"])
    reference = f"course-base/registry:{found.os.rpartition(':')[2]}"
    if not bases.present(reference):
        buildkit.build(
            _RECIPE,
            file=_RECIPE / "registry.Dockerfile",
            tag=reference,
            args={"OS_IMAGE": found.os},
            lifetime="kept",
            network="host",
        )
    return reference
