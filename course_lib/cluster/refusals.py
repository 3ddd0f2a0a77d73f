"""What the API server answers when it does not do what it was asked, in a sentence, and what to do about it."""

from __future__ import annotations

import json
import re
from typing import Any

from course_lib.errors import CourseError


class ApiError(CourseError):
    """The API server refused a call, or did not answer.

    Args:
        status: the HTTP status; 0 where there was no answer.
    """

    def __init__(self, what: str, *, why: str = "", do: str = "", status: int = 0) -> None:
        away = status in (0, 429, 500, 502, 503, 504)  # the server is away, overloaded, or starting
        super().__init__(what, why=why, do=do, passing=away)
        self.status = status


#: (status, what is said, what it means, what to do), most telling first. `{about}` is the object that was asked for.
_FIELD = (
    r"unknown field|strict decoding error|field not declared in schema",
    "{about} has a field that its kind does not have",
    "Look for a typing error, or for a field on the wrong level: `kubectl explain KIND.FIELD` says what belongs where.",
)
_ANSWERS: tuple[tuple[int, str, str, str], ...] = (
    (400, *_FIELD),
    (500, *_FIELD),  # what server-side apply says of it, in older versions
    (
        500,
        r"failed to create typed (patch|live) object",
        "the API server can't merge {about}",
        "Its own words above name the place; `kubectl explain KIND.FIELD` says what belongs there.",
    ),
    (
        400,
        r"",
        "the API server can't read {about}",
        "Compare it with `kubectl explain KIND --recursive`; its own words above say where it stopped.",
    ),
    (
        401,
        r"",
        "the cluster does not accept this login",
        "Its certificate or token has expired, or belongs to another cluster: get a new kubeconfig from who runs it.",
    ),
    (
        403,
        r"exceeded quota",
        "{about} is more than the namespace's quota leaves",
        "`kubectl describe quota` shows what is used; request less, or remove something.",
    ),
    (
        403,
        r"is being terminated",
        "{about} can't be made in a namespace that is being deleted",
        "Wait until the namespace is gone, then make it anew: `kubectl get namespaces`.",
    ),
    (
        403,
        r"violates PodSecurity|must specify limits|maximum .* usage|minimum .* usage",
        "a policy of the namespace refuses {about}",
        "The line above names what it demands: mend the manifest.",
    ),
    (
        403,
        r"",
        "this user may not do that with {about}",
        "`kubectl auth can-i --list` shows what it may.",
    ),
    (
        404,
        r'namespaces? "[^"]+" not found',
        "the namespace of {about} is not there",
        "Create it first: apply its manifest before, or together with, what belongs into it.",
    ),
    (
        404,
        r"",
        "there is no {about}",
        "Look at the name and the namespace: `kubectl get all --all-namespaces`.",
    ),
    (
        409,
        r"conflicts? with \"",
        "somebody else set fields of {about} that this manifest sets otherwise",
        "Leave the fields above to whoever owns them, or take them over with `force=True`.",
    ),
    (
        409,
        r"already exists",
        "{about} is there already",
        "Apply it instead of creating it, or delete the old one.",
    ),
    (
        409,
        r"",
        "{about} was changed by somebody else in the same moment",
        "Do it once more.",
    ),
    (
        422,
        r"immutable",
        "{about} has a field that can't be changed once it is made",
        "Delete it, and apply it again.",
    ),
    (
        422,
        r"",
        "the API server refuses {about}",
        "Mend the field that it names above; `kubectl explain KIND.FIELD` says what it takes.",
    ),
    (
        429,
        r"disruption budget",
        "{about} is held by a PodDisruptionBudget",
        "Wait until enough other pods are ready, or give it more replicas.",
    ),
)
_UNKNOWN = "Its own words above say why."


def of_answer(status: int, body: str, about: str) -> ApiError:
    """An answer of the API server that is no success.

    Args:
        status: HTTP status.
        body: what came with it, as a rule a `Status` object (its fields: API concepts, "Status").
        about: what the call was about, as in `Deployment lab/web`.
    """
    said = _parsed(body)
    message = str(said.get("message") or body).strip()[:1500]
    causes = (said.get("details") or {}).get("causes") or []
    # A field's path and what is wrong with it, a line each; the message itself puts all of them into one long line.
    lines = [": ".join(part for part in (one.get("field"), one.get("message")) if part) for one in causes]
    why = "\n".join(dict.fromkeys(lines)) or message
    for number, pattern, what, do in _ANSWERS:
        if number == status and re.search(pattern, f"{message}\n{why}"):
            return ApiError(what.format(about=about), why=why, do=do, status=status)
    if status >= 500:
        do = "It may be starting, or overloaded: wait a little; `kubectl get --raw=/readyz?verbose` says what is not well."
        return ApiError(f"the API server could not answer for {about}", why=message, do=do, status=status)
    return ApiError(f"the API server answered {status} for {about}", why=message, do=_UNKNOWN, status=status)


def of_silence(host: str, error: BaseException) -> ApiError:
    """No answer at all: nothing listens, nothing comes, or somebody else answers."""
    said = str(getattr(error, "reason", None) or error)
    if re.search(r"certificate", said, re.IGNORECASE):
        return ApiError(
            f"what answers at {host} is not the cluster of this kubeconfig",
            why=said,
            do="The cluster was made anew since the file was written, say: get its kubeconfig again.",
        )
    what = "did not answer in time" if re.search(r"time[d]?[ -]?out", said, re.IGNORECASE) else "does not answer"
    return ApiError(
        f"the API server at {host} {what}",
        why=said,
        do="Is the cluster up? `course cluster status`. After a restart of Docker its nodes take half a minute.",
    )


def of_kind(kind: str, version: str) -> CourseError:
    """A kind of objects that this cluster does not know."""
    return CourseError(
        f"the cluster knows no {kind} in {version}",
        do="Compare apiVersion and kind with `kubectl api-resources`; an add-on may be missing that brings it.",
    )


def _parsed(body: str) -> dict[str, Any]:
    try:
        said = json.loads(body)
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}
