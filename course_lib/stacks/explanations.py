"""What Compose, the engine and a service that does not get healthy mean, in a sentence, and what to do about it."""

from __future__ import annotations

import re

from course_lib import shell
from course_lib.errors import CourseError

#: (what is said, what it means, what to do), most telling first.
_COMMAND: tuple[tuple[str, str, str], ...] = (
    (
        r"port is already allocated|address already in use",
        "a port of this machine is taken by another program",
        "Choose another (the variable in front of it in compose.yaml, as in HTTPS_PORT=9443), or leave it empty for a free one.",
    ),
    (
        r"no space left on device",
        "the disk is full",
        "Free some: `docker system df` shows what holds it, `course cleanup --all` removes what the course keeps.",
    ),
    (
        r"required variable (\S+) is missing a value",
        "a variable of the Compose file has no value",
        "Give it one in the env file, or start the stack from the notebook, which does.",
    ),
    (
        r'Get "https?://[^"]*/v2/|pull access denied|manifest unknown|failed to resolve|failed to do request|i/o timeout|no such host|TLS handshake',
        "an image could not be had from its registry",
        "Check its name and the network. Without a registry, IMAGES=debian builds the same services from packages.",
    ),
    (
        r"non-overlapping IPv4 address pool|fully subnetted|Pool overlaps",
        "the engine has no free address range for another network",
        "Remove networks that nothing uses: `docker network prune`.",
    ),
    (
        r"undefined (network|volume|secret|config|service)|depends on undefined",
        "the Compose file names something that it does not define",
        "Look at the name in the line above: networks, volumes and secrets are listed at the end of the file, too.",
    ),
    (
        r"empty compose file|no service selected",
        "the Compose file has no services",
        "List them under `services:`, each with its image. Those of a profile count only while it is switched on.",
    ),
    (
        r"yaml: |did not find expected|mapping values are not allowed|Additional property|additional properties|must be a (string|mapping|list|number|boolean)|invalid interpolation|error decoding|unsupported",
        "the Compose file can't be read",
        "Look at the place it names; in YAML the indentation says what belongs to what.",
    ),
    (
        r"bind source path does not exist|not a directory: Are you trying to mount a directory onto a file",
        "something that the Compose file mounts is not there",
        "Check the path: it counts from the first Compose file's folder.",
    ),
    (
        r"neither an image nor a build|invalid compose project",
        "the Compose file is not complete",
        "The line above says what is missing, or does not fit together.",
    ),
    (
        r"container name .* is already in use",
        "a container of that name is there already",
        "Leave `container_name` out: Compose then names it after the project, and two stacks can live side by side.",
    ),
    (
        r"Range of CPUs is from",
        "a service may take more CPUs than this machine has",
        "Lower its limit (deploy.resources.limits.cpus, or the variable in it, such as INFERENCE_CPUS=1).",
    ),
    (
        r"Cannot connect to the Docker daemon",
        "the Docker engine does not answer",
        "Start it; `make doctor` says how.",
    ),
)

#: (in the log, the probe or the state; what to do).
_SERVICE: tuple[tuple[str, str], ...] = (
    (r"file is not a database|disk image is malformed", "Its files on the volume are damaged: empty the volume (`docker compose down --volumes`) and restore a backup."),
    (r"exec format error", "The image is for another kind of processor than this machine's: build or pull it for this one."),
    (r"out of memory", "It needs more memory than its limit (deploy.resources.limits.memory)."),
    (r"executable file not found|not found in \$PATH", "The health check or command asks for a program that the image does not have."),
    (r"no space left on device", "What it writes to is full: a tmpfs has its own size; `df -h` and `docker system df` show the disk's."),
    (r"read-only file system", "It writes to a place that is read-only: give it a volume or a tmpfs there."),
    (r"InconsistentVersion", "A newer Chroma wrote this volume, and Chroma does not go back: take the image that wrote it, or an empty volume and the backup."),
    (r"permission denied|unable to open database file", "It may not read or write something: compare the user it runs as with the owner of the volume or file."),
    (r"host not found|name or service not known|name resolution|no such host|could not be resolved|nodename nor servname", "It does not find another service by name: are both on one network, and is the other one up?"),
    (r"connection refused", "What it asks is not listening (yet): look at that service, and at the port."),
    (r"no such file or directory", "A file it needs is not there: compare the paths of its volumes and secrets."),
    (r"address already in use", "Another process in the same container listens on that port already."),
)  # fmt: skip


def of_command(error: shell.CommandError, project: str) -> CourseError:
    """Says what a failed `docker compose` command means; its own words stay below."""
    said = error.stderr or error.stdout
    last = "\n".join(line for line in said.strip().splitlines()[-8:])
    for pattern, what, do in _COMMAND:
        if re.search(pattern, said, re.I):
            return CourseError(what, why=last, do=do)
    if error.status is None:
        return CourseError(f"`docker compose` did not end in time for {project}", why=last, do="`docker compose ps` shows where it stands.")  # fmt: skip
    return CourseError("`docker compose` failed", why=last, do="Its own words above say why.")


def of_service(words: str) -> str:
    """What to do about a service, by what its state, its last probe and its log lines say; empty when nothing is known."""
    return next((do for pattern, do in _SERVICE if re.search(pattern, words, re.I)), "")
