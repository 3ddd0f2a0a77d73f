"""Deletion by label: everything of one application, whatever kind it is, and nothing else."""

from __future__ import annotations

from course_lib import waits
from course_lib.cluster.api import Api, Object
from course_lib.cluster.refusals import ApiError
from course_lib.errors import CourseError

#: Others write them, about objects with the label or beside them; they go by themselves.
_FOLLOW = ("Event", "Endpoints", "EndpointSlice")


def find(api: Api, namespace: str, labels: str) -> list[Object]:
    """Every object of a namespace that carries the labels, and the namespace itself where it does.

    `kubectl delete all` knows a handful of kinds, and forgets ConfigMaps, Secrets, autoscalers and claims among others: here
    the server's own list of kinds is gone through. Kinds that this user may not list are passed over.
    """
    found = []
    for kind in api.kinds():
        if kind.kind in _FOLLOW:
            continue
        try:
            each = api.objects(kind.group_version, kind.kind, namespace, labels=labels)
        except ApiError as error:
            if error.status in (403, 404, 405):
                continue
            raise
        # In a list the server leaves both out.
        found += [one | {"kind": kind.kind, "apiVersion": kind.group_version} for one in each]
    try:
        own = api.objects("v1", "Namespace", labels=labels, fields=f"metadata.name={namespace}")
    except ApiError as error:
        if error.status != 403:
            raise
        own = []
    return found + [one | {"kind": "Namespace", "apiVersion": "v1"} for one in own]


def delete(api: Api, namespace: str, labels: str, *, timeout: float) -> list[str]:
    """Deletes what `find` finds, and waits until it is gone, with what belongs to it.

    Returns:
        what was asked to go, as in `Deployment/web`; what these own follows.

    Raises:
        CourseError: the selector is empty, which would select everything.
        WaitTimeout: something is still there; names what holds it.
    """
    if not labels.strip():
        raise CourseError("a deletion by label needs a label", do="Give one, as in `app.kubernetes.io/part-of=course`.")
    # What has an owner goes with it; and where the owner does not carry the label, it would be made anew at once.
    first = waits.until(
        lambda: find(api, namespace, labels), what="the API server's list of kinds", timeout=120, every=0.5
    )
    roots = [one for one in first if not _owner(one)]
    for one in roots:
        meta = one["metadata"]
        api.delete(one["apiVersion"], one["kind"], meta["name"], None if one["kind"] == "Namespace" else namespace)
    # A ReplicaSet may be gone before its pods: whose these are has to be known from before.
    gone = _with_owned({one["metadata"]["uid"] for one in roots}, first)

    def probe() -> None:
        now = find(api, namespace, labels)
        gone.update(_with_owned(gone, now))
        if left := [one for one in now if one["metadata"]["uid"] in gone]:
            raise waits.NotYet(", ".join(map(_said, left)))

    waits.until(
        probe,
        what=f"everything with {labels} to be gone",
        timeout=timeout,
        every=0.3,
        do="Pods take their terminationGracePeriodSeconds; a finalizer in metadata waits for whoever has to remove it.",
    )
    return sorted(f"{one['kind']}/{one['metadata']['name']}" for one in roots)


def _with_owned(uids: set[str], among: list[Object]) -> set[str]:
    """These, and whatever they own, and what that owns."""
    found = set(uids)
    while more := {one["metadata"]["uid"] for one in among if _owner(one) & found} - found:
        found |= more
    return found


def _owner(one: Object) -> set[str]:
    return {owner["uid"] for owner in one["metadata"].get("ownerReferences") or [] if owner.get("controller")}


def _said(one: Object) -> str:
    held = ", ".join(one["metadata"].get("finalizers") or [])
    return f"{one['kind']}/{one['metadata']['name']}{f' (finalizers: {held})' if held else ''}"
