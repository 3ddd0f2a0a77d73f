"""An alert of the learner's own, held against a stack that loses its replicas one by one."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from course_lib.exercises import stack_checks as checks
from course_lib.exercises.stack_checks import require
from course_lib.images import stack_variables
from course_lib.lab.exercise import NotYet
from course_lib.settings import settings
from course_lib.stacks import Stack, course_stack
from course_lib.stacks.built_images import ensure


def require_does_not_fall_silent(folder: Path) -> dict[str, object]:
    """Starts a stack with a learner's rules, and takes its replicas away and back; returns what the alert did.

    Raises:
        NotYet: it fires too early, not at all, falls silent, or does not resolve.
    """
    rules = _rules(folder / "rules.yaml")
    stack = course_stack(
        stack_variables(), short="alert", profiles=(), overrides=(_mount_rules(folder),), variables={"INFERENCE_REPLICAS": "2"}
    )  # fmt: skip
    try:
        _require_promtool_content(stack)
        stack.up(services=("traces", "inference", "proxy", "prometheus", "alertmanager"))
        seen: dict[str, object] = {"rules": len(rules)}

        def state() -> str:
            firing = stack.prometheus.firing()
            mine = firing[firing["alert"] == "TooFewReplicas"]
            return str(mine["state"].iloc[0]) if len(mine) else ""

        def alertmanager() -> bool:
            return any(one["labels"]["alertname"] == "TooFewReplicas" for one in stack.alerts())

        stack.prometheus.wait_for('sum(up{job="inference"}) == 2', timeout=30)
        # While they started there were fewer than two, so it may have fired already, and rightly.
        calm = checks.eventually(lambda: state() == "", what="", timeout=20)
        early = not calm or checks.eventually(lambda: state() == "firing", what="", timeout=9)
        require(not early, "it fires while two replicas are up", expected="no alert", look="the comparison")
        began = time.monotonic()
        stack.scale("inference", 1)
        _require_firing(state, alertmanager, "one replica is left")
        seen["one replica left"] = f"fires after {time.monotonic() - began:.0f} s"
        stack.stop("inference")
        stack.prometheus.wait_for('absent(up{job="inference"} == 1)', timeout=30)
        silent = checks.eventually(lambda: state() != "firing", what="", timeout=9)
        require(
            not silent,
            "it falls silent when no replica is left",
            expected="it goes on firing",
            look="what the expression gives when `up` has no series",
        )
        seen["none left"] = "goes on firing"
        stack.scale("inference", 2)
        resolved = checks.eventually(lambda: state() == "", what="", timeout=45)
        require(resolved, "with two replicas again it does not resolve", expected="no alert", look="the comparison")
        seen["two again"] = "resolves"
        return seen
    finally:
        stack.remove()


def _require_promtool_content(stack: Stack) -> None:
    """Prometheus' own checker reads the rules, before a Prometheus that can't read them ends at its start.

    Raises:
        NotYet: it finds something.
    """
    stack.project.prepare()
    ensure(stack.project)
    check = ("run", "--rm", "--no-deps", "--entrypoint", "promtool", "prometheus", "check", "rules")
    said = stack.project.run(*check, "/etc/prometheus/rules.d/rules.yaml", show=False, check=False)
    if "SUCCESS" not in said.stdout:
        lines = [line for line in (said.stdout + said.stderr).splitlines() if "rules.yaml" in line or "error" in line]
        raise NotYet(
            "promtool can't read the rules:\n" + "\n".join(lines[-4:]),
            expected="rules that promtool takes",
            look="the expression",
        )


def _require_firing(state: Callable[[], str], alertmanager: Callable[[], bool], when: str) -> None:
    fires = checks.eventually(lambda: state() == "firing", what="", timeout=45)
    require(fires, f"it does not fire when {when}", expected="`firing` within seconds", look="the expression, by hand, in `stack.prometheus.query`")  # fmt: skip
    sent = checks.eventually(alertmanager, what="", timeout=20)
    require(sent, "Alertmanager never heard of it", expected="the alert there, too", look="Alertmanager's log")


def _rules(file: Path) -> list[dict[str, Any]]:
    """The rules of a learner's file, with the alert among them.

    Raises:
        NotYet: it has none of that name, or one without what people need at night.
    """
    try:
        groups = (yaml.safe_load(file.read_text()) or {}).get("groups") or []
        rules = [rule for group in groups for rule in group.get("rules") or []]
    except (OSError, yaml.YAMLError, AttributeError) as error:
        raise NotYet(f"{file.name} can't be read: {error}", expected="a rules file", look="the indentation") from None
    mine = [rule for rule in rules if rule.get("alert") == "TooFewReplicas"]
    require(bool(mine), "there is no alert TooFewReplicas", expected="one of that name", look=file.name)
    require(
        bool((mine[0].get("labels") or {}).get("severity")),
        "it has no label severity",
        expected="one, such as warning",
        look="labels",
    )
    for part in ("summary", "description"):
        require(bool((mine[0].get("annotations") or {}).get(part)), f"it has no {part}", expected="a sentence for who reads it at night", look="annotations")  # fmt: skip
    return rules


def _mount_rules(folder: Path) -> Path:
    """An override that gives a folder of rules to Prometheus."""
    override = settings().work_dir / "stack" / "rules-override.yaml"
    override.parent.mkdir(parents=True, exist_ok=True)
    mount = f"{folder}:/etc/prometheus/rules.d:ro"
    override.write_text(yaml.safe_dump({"services": {"prometheus": {"volumes": [mount]}}}))
    return override
