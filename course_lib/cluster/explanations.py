"""What kind, the kubelet and kubectl mean, in a sentence, and what to do about it."""

from __future__ import annotations

import re

from course_lib.errors import CourseError
from course_lib.shell import CommandError

#: (what is said, what it means, what to do), most telling first.
_START: tuple[tuple[str, str, str], ...] = (
    (
        r"no space left on device|ENOSPC|DiskPressure",
        "the disk is full",
        "Free some: `docker system df` shows what holds it, `course cleanup --all` removes what the course keeps.",
    ),
    (
        r"too many open files|inotify",
        "this machine allows too few watched files for so many nodes",
        "As root: `sysctl fs.inotify.max_user_watches=524288 fs.inotify.max_user_instances=512`, and start it again.",
    ),
    (
        r"port is already allocated|address already in use",
        "a port of this machine is taken by another program",
        "Start it again: each start takes other free ports.",
    ),
    (
        r"non-overlapping IPv4 address pool|fully subnetted|Pool overlaps",
        "the engine has no free address range for another network",
        "Remove networks that nothing uses: `docker network prune`.",
    ),
    (
        r"failed to pull image|pull access denied|manifest unknown|no such host|failed to resolve|TLS handshake|i/o timeout",
        "the nodes' image could not be had from its registry",
        "Check the network. Without a registry, IMAGES=debian builds one from packages, and `course cluster image load` takes an archive.",
    ),
    (
        r"exec format error|does not match the (specified|detected) (host )?platform",
        "the nodes' image is of another architecture than this machine",
        "Take one for this machine: leave COURSE_NODE_IMAGE out, or name an image of several platforms by its index.",
    ),
    (
        r"swap (on )?is (enabled|not supported)|running with swap",
        "the kubelet does not start while swap is on",
        "Turn it off for now: `sudo swapoff --all`.",
    ),
    (
        r"Cannot connect to the Docker daemon|docker daemon running",
        "Docker does not answer",
        "Start Docker, and run the command again.",
    ),
    (
        r"OOM|out of memory|Cannot allocate memory",
        "there was not enough memory for the nodes",
        "Close something: a node takes about half a gigabyte.",
    ),
    (
        r"Node\(s\) already exist|already exist for a cluster",
        "a cluster of that name is there already",
        "Remove it: `course cluster down`.",
    ),
)
_AWAY = "the cluster's API server does not answer"
_KUBECTL: tuple[tuple[str, str, str], ...] = (
    (
        r"connection to the server .* was refused|was refused - did you specify|(to the server|error): EOF|\"https?://\S+: (EOF|unexpected EOF)"
        r"|reset by peer|broken pipe|connection lost|i/o timeout|TLS handshake timeout|no route to host"
        r"|etcdserver: (request timed out|leader changed)|currently unable to handle the request",
        _AWAY,
        "Is the cluster up? `course cluster status`. After a restart of Docker its nodes take half a minute.",
    ),
    (
        r"error converting YAML|error parsing|yaml: |json: cannot unmarshal|mapping values are not allowed|did not find expected",
        "a manifest can't be read",
        "Look at the place it names; in YAML the indentation says what belongs to what.",
    ),
    (
        r"unknown field|ValidationError|strict decoding error",
        "a manifest has a field that its kind does not have",
        "Look for a typing error, or for a field on the wrong level: `kubectl explain KIND.FIELD` says what belongs where.",
    ),
    (
        r"no matches for kind",
        "the cluster knows no objects of that kind in that version",
        "Compare apiVersion with `kubectl api-resources`.",
    ),
    (
        r"is invalid|Invalid value|Required value|field is immutable",
        "the API server refuses a manifest",
        "The line above names the field. What can't be changed has to be deleted and made anew.",
    ),
    (
        r"namespaces? \"[^\"]+\" not found",
        "the namespace is not there",
        "Create it first, or apply the folder as a whole: Kustomize sorts the namespace to the front.",
    ),
    (
        r"Forbidden|forbidden",
        "this user may not do that",
        "`kubectl auth can-i --list` shows what it may.",
    ),
)


def of_start(error: CourseError, nodes: str) -> CourseError:
    """An error of a cluster's start, with what its nodes said, turned into a sentence where it is a known one."""
    said = error.stderr if isinstance(error, CommandError) else error.why
    text = f"{error.what}\n{said}\n{nodes}"
    for pattern, what, do in _START:
        if found := re.search(pattern, text):
            return CourseError(f"the cluster did not start: {what}", why=_around(text, found), do=do)
    last = "\n".join(said.strip().splitlines()[-8:])
    return CourseError(
        "the cluster did not start",
        why="\n".join(part for part in (error.what, last, nodes) if part),
        do="The nodes' own words stand above, the last ones last; `course doctor --lab 4.4.5` looks at this machine.",
    )


def of_kubectl(error: CommandError) -> CourseError:
    """A failed kubectl as a sentence, with its own words below."""
    said = (error.stderr.strip() or error.stdout.strip())[-1500:]
    late = error.status is None
    for pattern, what, do in _KUBECTL:
        if re.search(pattern, said, re.MULTILINE):
            return CourseError(what, why=said, do=do, passing=late or what == _AWAY)
    return CourseError(f"`kubectl` failed: {error.what}", why=said, do="Its own words above say why.", passing=late)


def _around(text: str, found: re.Match[str]) -> str:
    """The line that a pattern was found in, and the one before."""
    lines = text[: text.find("\n", found.end()) if "\n" in text[found.end() :] else len(text)].splitlines()
    return "\n".join(line.strip()[:400] for line in lines[-2:])
