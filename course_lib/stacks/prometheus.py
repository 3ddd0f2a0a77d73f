"""Asking Prometheus: values, and series as data frames (its HTTP API: https://prometheus.io/docs/prometheus/latest/querying/api/)."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pandas as pd

from course_lib import waits
from course_lib.errors import CourseError
from course_lib.lab.steps import record


class Prometheus:
    """A Prometheus server at an address."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)

    def query(self, expression: str) -> pd.DataFrame:
        """What an expression is now: one row a series, its labels as columns, `value` last.

        Raises:
            CourseError: Prometheus does not answer, or the expression is wrong.
        """
        found = self._ask("/api/v1/query", query=expression)
        if found["resultType"] == "scalar":
            return pd.DataFrame([{"value": float(found["result"][1])}])
        return pd.DataFrame([{**one["metric"], "value": float(one["value"][1])} for one in found["result"]])

    def value(self, expression: str) -> float:
        """The one number that an expression is now; 0 where no series matches, as for a counter that nothing counted yet.

        Raises:
            CourseError: it has several.
        """
        found = self.query(expression)
        if len(found) > 1:
            raise CourseError(
                f"{expression} has {len(found)} values", do="Put sum(…) or max(…) around it, or use `query`."
            )
        value = float(found["value"].iloc[0]) if len(found) else 0.0
        record("prometheus.value", "prometheus", self.url, query=expression, value=value)
        return value

    def series(self, expression: str, *, minutes: float = 5, step: float = 2) -> pd.DataFrame:
        """How an expression went: a row every `step` seconds, a column a series, named by its labels.

        Args:
            minutes: how far back.
            step: seconds between two points.

        Raises:
            CourseError: Prometheus does not answer, or the expression is wrong.
        """
        end = time.time() // step * step  # the same points for every expression, so that frames fit together
        found = self._ask("/api/v1/query_range", query=expression, start=end - 60 * minutes, end=end, step=step)
        columns = {
            _label(one["metric"]): pd.Series({pd.Timestamp(t, unit="s"): float(v) for t, v in one["values"]})
            for one in found["result"]
        }
        return pd.DataFrame(columns).sort_index()

    def wait_for(self, expression: str, *, timeout: float = 60) -> pd.DataFrame:
        """Waits until an expression has any value (a comparison has none while it is false), and returns it.

        Raises:
            CourseError: it had none in time.
        """

        def probe() -> pd.DataFrame:
            found = self.query(expression)
            if found.empty:
                raise waits.NotYet("no series matches")
            return found

        return waits.until(probe, what=f"Prometheus to find {expression}", timeout=timeout, every=0.5)

    def targets(self) -> pd.DataFrame:
        """What Prometheus scrapes: job, instance, health (up, down, unknown) and the last error."""
        rows = [
            {
                "job": t["labels"]["job"],
                "instance": t["labels"]["instance"],
                "health": t["health"],
                "error": t["lastError"],
            }
            for t in self._ask("/api/v1/targets", state="active")["activeTargets"]
        ]
        return pd.DataFrame(rows).sort_values(["job", "instance"], ignore_index=True)

    def firing(self) -> pd.DataFrame:
        """The alerts that are pending or firing now: name, state, severity, summary, runbook."""
        rows = [
            {
                "alert": a["labels"]["alertname"],
                "state": a["state"],
                "severity": a["labels"].get("severity", ""),
                "summary": a["annotations"].get("summary", ""),
                "runbook": a["annotations"].get("runbook", ""),
            }
            for a in self._ask("/api/v1/alerts")["alerts"]
        ]
        return pd.DataFrame(rows, columns=["alert", "state", "severity", "summary", "runbook"])

    def rules(self) -> list[str]:
        """The names of the alerts that Prometheus evaluates."""
        groups = self._ask("/api/v1/rules", type="alert")["groups"]
        return [rule["name"] for group in groups for rule in group["rules"]]

    def _ask(self, path: str, **parameters: Any) -> Any:
        try:
            answer = self._http.get(path, params=parameters)
        except httpx.HTTPError as error:
            raise CourseError(
                "Prometheus does not answer", why=str(error), do="Is it running? `stack.show()` tells.",
                passing=isinstance(error, httpx.TimeoutException),
            ) from None  # fmt: skip
        try:
            body = answer.json()
        except ValueError:
            raise CourseError(f"Prometheus answered {answer.status_code}", why=answer.text[:300]) from None
        if body.get("status") != "success":
            raise CourseError(
                f"Prometheus can't evaluate {parameters.get('query', path)}",
                why=str(body.get("error", "")),
                do="Check the expression; /graph of Prometheus' own page completes names.",
            )
        return body["data"]


def _label(metric: dict[str, str]) -> str:
    """A series' labels in a few words; the metric's own name only where nothing else tells it."""
    labels = [value for key, value in metric.items() if key != "__name__"]
    return ", ".join(labels) or metric.get("__name__", "value")
