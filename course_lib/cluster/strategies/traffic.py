"""The door: nginx shares requests out among two versions, or lets a second one hear all of them. It learns of a change by a ConfigMap
and a reload, and no request is lost on the way.

The files are k8s/strategies/door. `split_clients` hashes a text into a hundred parts: the request's own number for a canary, the
user's for an A/B test, in which who has seen one version must not see the other.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import httpx

from course_lib import shell, waits
from course_lib.cluster.deployer import Deployer
from course_lib.cluster.execute import execute
from course_lib.cluster.pods import Pod
from course_lib.cluster.strategies import release as releases
from course_lib.errors import CourseError

DOOR, CONFIG = "door", "door-traffic"
STABLE, CANDIDATE = "inference-stable", "inference-candidate"
_FOLDER, _NGINX = "/etc/nginx/traffic", "/etc/nginx/door/nginx.conf"
_KEPT = {"stable": "/tmp/shadow-stable", "candidate": "/tmp/shadow-candidate"}
_HASHED = {"request": "$request_id", "user": "$http_x_user_id"}


@dataclass(frozen=True)
class Traffic:
    """Who gets what."""

    candidate: float = 0
    """Percent of the requests, or of the users."""
    by: Literal["request", "user"] = "request"
    mirror: bool = False
    """The candidate hears every request, too, and nobody hears the candidate."""

    def __post_init__(self) -> None:
        if not 0 <= self.candidate <= 100:
            raise CourseError(f"{self.candidate:g} % of the traffic is none", do="Take 0 to 100.")

    def files(self) -> dict[str, str]:
        """The ConfigMap's content."""
        shares = [f"    {self.candidate:g}% candidate;\n"] if 0 < self.candidate < 100 else []
        shares += [f"    * {'candidate' if self.candidate == 100 else 'stable'};\n"]
        split = f'split_clients "{_HASHED[self.by]}" $pool {{\n{"".join(shares)}}}\n'
        # The user's answer is kept beside the shadow's, under the request's number, for as long as they are compared.
        mirror = f"mirror /shadow;\nproxy_store {_KEPT['stable']}/$request_id;\n" if self.mirror else "# no mirror\n"
        name = hashlib.sha256((split + mirror).encode()).hexdigest()[:12]
        return {"split.conf": f'map "" $traffic {{ default "{name}"; }}\n{split}', "mirror.conf": mirror}

    @property
    def mark(self) -> str:
        """What the door answers at /traffic when this is in force."""
        return self.files()["split.conf"].split('"')[3]

    def words(self) -> str:
        """It in a line."""
        share = f"{self.candidate:g} % of {self.by}s to the candidate"
        return f"{share}, and all mirrored to it" if self.mirror else share


def direct(deployer: Deployer, address: str, traffic: Traffic, *, timeout: float = 60) -> None:
    """Lets the door share requests out otherwise, and comes back when it does.

    Args:
        address: of the door, as this machine reaches it.

    Raises:
        CourseError: it does not take it over in time.
    """
    wanted = traffic.files()
    shell.announce(f"# {traffic.words()}: ConfigMap {CONFIG}, then `nginx -s reload` in the door's pod")
    deployer.api.patch("v1", "ConfigMap", CONFIG, deployer.namespace, {"data": wanted})
    pods = releases.ready(deployer, DOOR)
    if not pods:
        raise CourseError("the door has no pod that is ready", do=f"Wait for it: `deployer.wait({DOOR!r})`.")
    for pod in pods:
        _arrives(deployer, pod, wanted, timeout)
        done = execute(deployer.api, deployer.namespace, pod.name, "nginx", "-c", _NGINX, "-s", "reload", show=False)
        if done.status:
            raise CourseError(f"nginx in {pod.name} does not take the new files", why=done.stderr or done.stdout)

    def probe() -> None:
        try:
            said = httpx.get(f"{address}/traffic", timeout=5, trust_env=False).text.strip()
        except httpx.HTTPError as error:
            raise waits.NotYet(str(error) or repr(error)) from None
        if said != traffic.mark:
            raise waits.NotYet(f"{said} is in force")

    waits.until(probe, what="the door to share requests out otherwise", timeout=timeout, every=0.1)


def _arrives(deployer: Deployer, pod: Pod, wanted: dict[str, str], timeout: float) -> None:
    """Waits until a changed ConfigMap is in a pod's files.

    The kubelet looks after a pod's volumes once a minute, and when the pod itself changes: a note on it is enough.
    """
    note = {"metadata": {"annotations": {"course/traffic": datetime.now(UTC).isoformat()}}}
    deployer.api.patch("v1", "Pod", pod.name, deployer.namespace, note)

    def probe() -> None:
        command = ["cat", *(f"{_FOLDER}/{name}" for name in wanted)]
        if (found := execute(deployer.api, deployer.namespace, pod.name, *command, show=False).stdout) != "".join(
            wanted.values()
        ):
            raise waits.NotYet(found[:200])

    waits.until(probe, what=f"the changed ConfigMap to be in {pod.name}", timeout=timeout, every=0.3)


@dataclass(frozen=True)
class Compared:
    """What two versions answered to the same requests."""

    pairs: int
    differ: int
    examples: tuple[tuple[str, str], ...]
    """(the user's answer, the shadow's) of the first few that differ."""

    @property
    def share(self) -> float:
        """That differ of all."""
        return self.differ / self.pairs if self.pairs else 0.0


def compare(deployer: Deployer) -> Compared:
    """What users were told beside what the shadow said, request by request."""
    said = [
        execute(deployer.api, deployer.namespace, pod.name, "grep", "-r", "-s", ".", *_KEPT.values(), timeout=60).stdout
        for pod in releases.ready(deployer, DOOR)
    ]
    return compared(line for text in said for line in text.splitlines())


def compared(lines: Iterable[str]) -> Compared:
    """Pairs up kept answers.

    Args:
        lines: `path:answer`, as `grep -r .` prints files of one line.
    """
    answers: dict[str, dict[str, str]] = {"stable": {}, "candidate": {}}
    folders = {folder: which for which, folder in _KEPT.items()}
    for line in lines:
        path, _, text = line.partition(":")
        folder, _, request = path.rpartition("/")
        if folder in folders and (label := _class(text)):
            answers[folders[folder]][request] = label
    both = sorted(answers["stable"].keys() & answers["candidate"].keys())
    pairs = [(answers["stable"][request], answers["candidate"][request]) for request in both]
    differ = [pair for pair in pairs if pair[0] != pair[1]]
    return Compared(len(pairs), len(differ), tuple(differ[:5]))


def forget(deployer: Deployer) -> None:
    """Throws the kept answers away: they are what users were told, and nobody's business any longer."""
    for pod in releases.ready(deployer, DOOR):
        execute(deployer.api, deployer.namespace, pod.name, "rm", "-rf", *_KEPT.values(), show=False)


def _class(text: str) -> str:
    try:
        found: Any = json.loads(text)
    except ValueError:  # it is being written
        return ""
    return str(found.get("predicted_class", "")) if isinstance(found, dict) else ""
