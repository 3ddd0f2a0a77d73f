"""An image, pushed to where a cluster's nodes pull from; a registry's refusals as sentences."""

from __future__ import annotations

import re

from course_lib import ledger, reaper, shell
from course_lib.errors import CourseError
from course_lib.lab.steps import record
from course_lib.settings import settings

#: (what is said, what it means, what to do), most telling first; `{registry}` is the one that was asked.
_REFUSALS: tuple[tuple[str, str, str], ...] = (
    (
        r"server gave HTTP response to HTTPS client",
        "registry {registry} speaks plain HTTP, and Docker wants TLS",
        'Give it a certificate; for one of your own network, name it under "insecure-registries" in /etc/docker/daemon.json, '
        "and in the nodes' containerd, too.",
    ),
    (
        r"x509|certificate",
        "Docker does not trust the certificate of registry {registry}",
        "Put its authority's certificate into /etc/docker/certs.d/HOST/ca.crt; the nodes need it, too.",
    ),
    (
        r"name unknown|repository .*(does not exist|not found)|project .*not found",
        "registry {registry} has no such repository, and makes none by itself",
        "Make it first, in its console or by its command line (Amazon ECR: `aws ecr create-repository`).",
    ),
    (
        r"denied|unauthorized|no basic auth|authentication required|insufficient_scope|forbidden|403|401",
        "registry {registry} does not let you push",
        "`docker login HOST` first, as somebody who may write there, and look at the name in KUBE_REGISTRY.",
    ),
    (
        r"no such host|connection refused|i/o timeout|no route to host|timed? ?out|EOF|deadline exceeded",
        "registry {registry} does not answer",
        "Compare its name in KUBE_REGISTRY, and look at the network.",
    ),
    (
        r"invalid reference format|invalid repository name",
        "KUBE_REGISTRY={registry} is no place to push to",
        "Give host and path without https://, as in `registry.example.com/me`.",
    ),
    (
        r"no space left|insufficient storage|quota",
        "registry {registry} has no room left",
        "Delete old images there.",
    ),
)  # fmt: skip


def push(image: str, registry: str, name: str) -> str:
    """Pushes an image and returns its reference by digest. It stays in the registry: that is its owner's to clear.

    Args:
        registry: host and path, as in `registry.example.com/me`.
        name: repository and tag below it; the checkout's number is put behind the tag.

    Raises:
        CourseError: this machine has no such image, or the registry refuses it: says why, as far as it is known.
    """
    repository, _, tag = name.rpartition(":") if ":" in name else (name, "", "latest")
    reference = f"{registry}/{repository}:{tag}-{settings().checkout_id}"
    ledger.write_down("image", reference)
    try:
        shell.run(["docker", "image", "tag", image, reference])
        said = shell.run(["docker", "image", "push", reference], timeout=1800).stdout
    except shell.CommandError as error:
        raise _refused(error, registry) from None
    finally:
        reaper.dispose("image", reference)
    found = re.search(r"digest: (sha256:[0-9a-f]{64})", said)
    if found is None:
        raise CourseError(f"pushing {reference} gave no digest", why=said[-500:])
    record("registry.pushed", "registry", reference, digest=found[1])
    return f"{registry}/{repository}@{found[1]}"


def _refused(error: shell.CommandError, registry: str) -> CourseError:
    said = error.stderr.strip() or error.stdout.strip()
    for pattern, what, do in _REFUSALS:
        if re.search(pattern, said, re.IGNORECASE):
            return CourseError(what.format(registry=registry), why=said[-800:], do=do)
    return CourseError(
        f"the image could not be pushed to {registry}", why=said[-800:], do="Its own words above say why."
    )
