"""Events: what Kubernetes noted about an object, kept for an hour."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from course_lib.cluster.api import Api, Object


@dataclass(frozen=True)
class Event:
    """One thing that happened, perhaps several times."""

    last: datetime
    """When it happened last, UTC."""
    type: str
    """Normal or Warning."""
    object: str
    """Of which object, as in `Pod/web-5d9c`."""
    container: str
    """Of which of its containers; empty where it is about the whole."""
    reason: str
    message: str
    count: int

    def words(self) -> str:
        """The event in a line."""
        often = f" ({self.count} times)" if self.count > 1 else ""
        return f"{self.object}: {self.reason}{often}: {' '.join(self.message.split())[:400]}"


def of(found: Object) -> Event:
    """An event as the API has it: older ones count by themselves, newer ones as a series."""
    about, series = found["involvedObject"], found.get("series") or {}
    last = series.get("lastObservedTime") or found.get("lastTimestamp") or found.get("eventTime")
    path = about.get("fieldPath", "")
    return Event(
        last=moment(last or found["metadata"]["creationTimestamp"]),
        type=found.get("type", "Normal"),
        object=f"{about.get('kind', '')}/{about.get('name', '')}",
        container=path.partition("{")[2].rstrip("}"),
        reason=found.get("reason", ""),
        message=found.get("message", ""),
        count=int(series.get("count") or found.get("count") or 1),
    )


def events(api: Api, namespace: str, *, kind: str = "", name: str = "") -> list[Event]:
    """What was noted in a namespace, the oldest first.

    Args:
        kind: only about objects of a kind.
        name: only about objects of that name.
    """
    fields = {"involvedObject.kind": kind, "involvedObject.name": name}
    selector = ",".join(f"{key}={value}" for key, value in fields.items() if value)
    return sorted((of(one) for one in api.objects("v1", "Event", namespace, fields=selector)), key=lambda one: one.last)


def moment(text: str) -> datetime:
    """A time as the API spells it, `2026-11-21T18:15:26Z`, with or without fractions of a second."""
    return datetime.fromisoformat(text).astimezone(UTC)
