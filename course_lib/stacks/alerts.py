"""Alerts: waiting until one fires or resolves, as Prometheus and Alertmanager see it, and the runbook that goes with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from course_lib import waits
from course_lib.errors import CourseError
from course_lib.lab.steps import record
from course_lib.settings import CHECKOUT
from course_lib.stacks.stack import Stack


@dataclass(frozen=True)
class Alert:
    """An alert that fires."""

    name: str
    severity: str
    summary: str
    runbook: Path


def wait_firing(stack: Stack, name: str, *, timeout: float = 180) -> Alert:
    """Waits until an alert fires and Alertmanager has it.

    Raises:
        CourseError: there is no such rule, or it did not fire in time; says what fires instead.
    """

    def probe() -> Alert:
        for one in stack.alerts():
            if one["labels"]["alertname"] == name and one["status"]["state"] != "suppressed":
                labels, said = one["labels"], one["annotations"]
                runbook = CHECKOUT / said.get("runbook", "")
                return Alert(name, labels.get("severity", ""), said.get("summary", ""), runbook)
        raise waits.NotYet(f"{_now(stack)}")

    _require_rule(stack, name)
    found = waits.until(probe, what=f"the alert {name} to fire", timeout=timeout, every=0.5)
    record("stack.alert-firing", "alertmanager", name, severity=found.severity, summary=found.summary)
    return found


def wait_resolved(stack: Stack, name: str, *, timeout: float = 180) -> None:
    """Waits until an alert neither fires nor is about to.

    Raises:
        CourseError: it did not resolve in time.
    """

    def probe() -> None:
        if (stack.prometheus.firing()["alert"] == name).any():
            raise waits.NotYet(f"{_now(stack)}")

    waits.until(probe, what=f"the alert {name} to resolve", timeout=timeout, every=0.5)
    record("stack.alert-resolved", "prometheus", name)


def _now(stack: Stack) -> str:
    found = stack.prometheus.firing()
    return ", ".join(f"{row.alert} ({row.state})" for row in found.itertuples()) or "no alert fires"


def _require_rule(stack: Stack, name: str) -> None:
    known = stack.prometheus.rules()
    if name not in known:
        raise CourseError(f"Prometheus has no alert {name}", do=f"It has: {', '.join(known) or 'none'}.")
