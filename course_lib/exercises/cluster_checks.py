"""What the checks of lab 4.4.5 look for in manifests, and in what came of them on the cluster."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from course_lib import images, waits
from course_lib.cluster import Deployer, endpoints, headers, manifests, serving, usage
from course_lib.cluster.api import Object
from course_lib.errors import CourseError
from course_lib.images import bases
from course_lib.lab.exercise import NotYet


def require(fine: bool, seen: str, *, expected: str, look: str) -> None:
    if not fine:
        raise NotYet(seen, expected=expected, look=look)


def objects(folder: Path, *, kinds: Collection[str]) -> list[Object]:
    """The objects of a learner's folder, as they can go into a room of the check.

    Args:
        kinds: what may be among them.

    Raises:
        NotYet: they can't be read, one is of another kind, or names a namespace.
    """
    try:
        found = manifests.read(folder, kubectl=bases.source()[0])
    except CourseError as error:
        raise NotYet(f"{error.what}\n{error.why}", expected="manifests in YAML", look=error.do) from None
    for one in found:
        name = f"{one['kind']} {one['metadata']['name']}"
        require(
            one["kind"] in kinds, f"there is a {name}", expected=f"only these kinds: {', '.join(kinds)}", look="kind"
        )
        require(
            "namespace" not in one["metadata"],
            f"{name} names a namespace",
            expected="none: the check brings its own",
            look="metadata.namespace",
        )
    return found


def named(found: Sequence[Object], kind: str, name: str) -> Object:
    """The object of a kind and a name.

    Raises:
        NotYet: there is none.
    """
    same = [one for one in found if one["kind"] == kind]
    for one in same:
        if one["metadata"]["name"] == name:
            return one
    there = ", ".join(one["metadata"]["name"] for one in same) or "none"
    raise NotYet(f"there is no {kind} {name}", expected=f"one of that name (there is: {there})", look="metadata.name")


def part(found: Any, *path: str | int) -> Any:
    """What stands in a manifest at a place, as in part(deployment, "spec", "replicas"); None where nothing does."""
    for key in path:
        if isinstance(key, int):
            found = found[key] if isinstance(found, list) and key < len(found) else None
        else:
            found = found.get(key) if isinstance(found, dict) else None
    return found


def mapping(found: Any, *path: str | int) -> dict[str, Any]:
    """The same where fields by name are expected; without any where something else stands there."""
    here = part(found, *path)
    return here if isinstance(here, dict) else {}


def each(found: Any, *path: str | int) -> list[Any]:
    """The same where a list is expected."""
    here = part(found, *path)
    return here if isinstance(here, list) else []


def number(found: Any, *path: str | int) -> float | None:
    """The same where a number is expected.

    Raises:
        NotYet: something else stands there.
    """
    said = part(found, *path)
    if said is None:
        return None
    try:
        return float(said)
    except (TypeError, ValueError):
        place = ".".join(map(str, path))
        raise NotYet(f"{place} is {said!r}", expected="a number", look=place) from None


def server(deployment: Object) -> Object:
    """The first container of a Deployment's pods.

    Raises:
        NotYet: there is none.
    """
    found = part(deployment, "spec", "template", "spec", "containers", 0)
    if not isinstance(found, dict):
        raise NotYet(
            f"Deployment {deployment['metadata']['name']} has no container",
            expected="one in the template of its pods",
            look="spec.template.spec.containers",
        )
    return found


def limit(container: Object, resource: str) -> float:
    """How much a container may take at most, in cores or bytes.

    Raises:
        NotYet: it has no such limit, or what stands there is no amount.
    """
    said = part(container, "resources", "limits", resource)
    place = f"resources.limits.{resource}"
    require(said is not None, f"there is no limit for {resource}", expected="one", look=place)
    try:
        return usage.amount(said)
    except CourseError as error:
        raise NotYet(error.what, expected=f"an amount of {resource}", look=place) from None


def require_probe(container: Object, which: str, path: str) -> None:
    """A container has a probe that asks the server for a path.

    Args:
        which: as in `readinessProbe`.
    """
    probe = part(container, which)
    require(bool(probe), f"there is no {which}", expected=f"one that asks for {path}", look=which)
    asked = part(probe, "httpGet", "path")
    require(asked == path, f"the {which} asks for {asked}", expected=f"httpGet of {path}", look=f"{which}.httpGet")


def applied(deployer: Deployer, found: Sequence[Object], *, dry_run: bool = False) -> None:
    """Puts objects into a room.

    Args:
        dry_run: only asks whether the API server would take them.

    Raises:
        NotYet: the API server does not take one; with its words.
    """
    try:
        deployer.apply(list(found), dry_run=dry_run)
    except CourseError as error:
        raise NotYet(
            f"{error.what}\n{error.why}", expected="manifests that the API server takes", look=error.do
        ) from None


def rolled_out(deployer: Deployer, name: str = serving.DEPLOYMENT, *, timeout: float = 300) -> None:
    """Waits until a Deployment serves.

    Raises:
        NotYet: it does not get ready; with the pod's reason, its events, its log lines, and what to do.
    """
    try:
        deployer.wait(name, timeout=timeout)
    except CourseError as error:
        raise NotYet(f"{error.what}\n{error.why}", expected=f"Deployment {name}, ready", look=error.do) from None


def require_answers(deployer: Deployer, address: str, *, service: str = serving.SERVICE, timeout: float = 30) -> str:
    """A prediction through a Service is right, and is refused without the key; returns it.

    Args:
        address: of the Service, as this machine reaches it.
        timeout: until the nodes know a new Service's pods.

    Raises:
        NotYet: no answer, a wrong one, or one for anybody.
    """
    sample, key = images.samples(1)[0], headers(deployer)

    def asked() -> dict[str, Any]:
        try:
            return serving.predict(address, sample.pixels, key)
        except CourseError as error:
            raise waits.NotYet(f"{error.what}\n{error.why}") from None

    try:
        answer = waits.until(asked, what=f"an answer of Service {service}", timeout=timeout, every=0.3)
    except waits.WaitTimeout as late:
        listed = ", ".join(endpoints(deployer, service)) or "no pod"
        raise NotYet(
            f"Service {service} gives no answer; it sends to {listed}\n{late.why}",
            expected="a prediction",
            look=f"`kubectl get endpoints {service}`: which labels does it look for, and which port do they listen on?",
        ) from None
    said = str(answer.get("predicted_class"))
    require(said == sample.label, f"the answer is {said}", expected=f"{sample.label}", look="what the pods run")
    try:
        serving.predict(address, sample.pixels, {})
        let_in = "gets an answer, too"
    except CourseError as error:
        let_in = "" if "answered 401" in error.what else error.what
    require(
        not let_in,
        f"who asks without a key: {let_in}",
        expected="401: it lets in who has the key of the Secret",
        look="API_KEYS_FILE, and the volume with the Secret",
    )
    return said
