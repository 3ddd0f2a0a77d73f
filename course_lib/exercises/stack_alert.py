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
    """Plays a learner's rules through in Prometheus' own rule tester, then on a stack whose replicas go and come back;
    returns what the alert did.

    Raises:
        NotYet: it fires too early, not at all, falls silent, or does not resolve.
    """
    rules = _rules(folder / "rules.yaml")
    stack = course_stack(
        stack_variables(), short="alert", profiles=(), overrides=(_mount_rules(folder),), variables={"INFERENCE_REPLICAS": "2"}
    )  # fmt: skip
    try:
        _require_promtool_content(stack)
        _require_played_through(stack)
        stack.up(services=("traces", "inference", "proxy", "prometheus", "alertmanager"))
        seen: dict[str, object] = {"rules": len(rules)}

        def state() -> str:
            firing = stack.prometheus.firing()
            mine = firing[firing["alert"] == "TooFewReplicas"]
            return str(mine["state"].iloc[0]) if len(mine) else ""

        def alertmanager() -> bool:
            return any(one["labels"]["alertname"] == "TooFewReplicas" for one in stack.alerts())

        stack.prometheus.wait_for('sum(up{job="inference"}) == 2', timeout=120)
        # While they started there were fewer than two, so it may have fired already, and rightly.
        calm = checks.eventually(lambda: state() == "", what="", timeout=90)
        require(calm, "it fires while two replicas are up", expected="no alert", look="the comparison")
        began = time.monotonic()
        stack.scale("inference", 1)
        _require_firing(state, alertmanager, "one replica is left")
        seen["one replica left"] = f"fires after {time.monotonic() - began:.0f} s"
        stack.scale("inference", 2)
        resolved = checks.eventually(lambda: state() == "", what="", timeout=90)
        require(resolved, "with two replicas again it does not resolve", expected="no alert", look="the comparison")
        seen["two again"] = "resolves"
        return seen | {"none left": "goes on firing, in the rule tester"}
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


#: What the rule tester plays: two replicas, at 32 s one, at 62 s none, at 92 s two again. When it asks: (firing, what is wrong else).
_PLAYED = {
    "20s": (0, "it fires while two replicas are up"),
    "50s": (1, "it does not fire when one replica is left"),
    "1m24s": (1, "it falls silent when no replica is left"),
    "2m10s": (0, "with two replicas again it does not resolve"),
}
_TEST = {
    "rule_files": ["rules.d/rules.yaml"],
    "evaluation_interval": "2s",
    "tests": [
        {
            "interval": "2s",
            "input_series": [
                {"series": 'up{job="inference", instance="a:8080"}', "values": "1x30 stale _x14 1x40"},
                {"series": 'up{job="inference", instance="b:8080"}', "values": "1x15 stale _x29 1x40"},
            ],
            "promql_expr_test": [
                {
                    "expr": 'count(ALERTS{alertname="TooFewReplicas", alertstate="firing"}) or vector(0)',
                    "eval_time": moment,
                    "exp_samples": [{"labels": "{}", "value": firing}],
                }
                for moment, (firing, _) in _PLAYED.items()
            ],
        }
    ],
}


def _require_played_through(stack: Stack) -> None:
    """The rules in `promtool test rules`, where nothing is left to chance: a series that ends is gone.

    Raises:
        NotYet: at some moment the alert is not as it should be.
    """
    play = ("run", "--rm", "--no-deps", "--entrypoint", "promtool", "prometheus", "test", "rules")
    said = stack.project.run(*play, "/etc/prometheus/played.yaml", show=False, check=False)
    text = said.stdout + said.stderr
    for moment, (_, wrong) in _PLAYED.items():
        if f"time: {moment}," in text:
            raise NotYet(
                wrong,
                expected="it fires while fewer than two are up, and only then",
                look="what the expression gives when `up` has fewer series, or none",
            )
    require(
        "SUCCESS" in text, f"promtool could not play it through:\n{text[-400:]}", expected="SUCCESS", look="the rules"
    )


def _require_firing(state: Callable[[], str], alertmanager: Callable[[], bool], when: str) -> None:
    fires = checks.eventually(lambda: state() == "firing", what="", timeout=90)
    require(fires, f"it does not fire when {when}", expected="`firing` within seconds", look="the expression, by hand, in `stack.prometheus.query`")  # fmt: skip
    sent = checks.eventually(alertmanager, what="", timeout=90)
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
    """An override that gives a folder of rules to Prometheus, and what its rule tester plays."""
    made = settings().work_dir / "stack"
    made.mkdir(parents=True, exist_ok=True)
    played, override = made / "played.yaml", made / "rules-override.yaml"
    played.write_text(yaml.safe_dump(_TEST))
    mounts = [f"{folder}:/etc/prometheus/rules.d:ro", f"{played}:/etc/prometheus/played.yaml:ro"]
    override.write_text(yaml.safe_dump({"services": {"prometheus": {"volumes": mounts}}}))
    return override
