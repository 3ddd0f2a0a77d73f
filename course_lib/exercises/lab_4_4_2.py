"""The exercises of lab 4.4.2: Compose files that are mended and written, replicas, an alert, and a terminal.

A check starts what the learner wrote and looks at the engine, at Prometheus and at the answers. Hints come in three: what to
think about, where to look, how it is said.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from course_lib.errors import CourseError
from course_lib.exercises import stack_checks as checks
from course_lib.exercises import stack_scenes, stack_terminal
from course_lib.exercises.stack_checks import require
from course_lib.images import stack_variables
from course_lib.lab.exercise import STARTERS, NotYet, exercise
from course_lib.stacks import Stack, course_stack, require_unreachable
from course_lib.stacks.built_images import ensure

__all__ = [
    "ask", "dashboard", "disconnected", "flood", "load", "lose_documents", "precedence", "see_it_fail", "terminal_task", "what_users_see",
]  # fmt: skip

LAB = "4.4.2"

ask, dashboard, disconnected = stack_scenes.ask, stack_scenes.dashboard, stack_scenes.disconnected
flood, load, lose_documents = stack_scenes.flood, stack_scenes.load, stack_scenes.lose_documents
precedence, what_users_see = stack_scenes.precedence, stack_scenes.what_users_see
terminal_task = stack_terminal.show_task


def see_it_fail() -> str:
    """Starts the stack of `never-healthy` as the colleague left it, and returns what that ended in."""
    stack = checks.own(STARTERS / LAB / "never-healthy" / "compose.yaml", "failing")
    try:
        stack.up(timeout=60)
    except CourseError as error:
        return str(error)
    finally:
        stack.remove()
    return "It got healthy, which it never did before."


#: Not a multiple of 3: nobody gets the right numbers by dividing.
REQUESTS = 97


@exercise(
    LAB,
    "never-healthy",
    "A stack that never gets healthy",
    files=True,
    hints=(
        "Mend what the check names first, then run it again: each fault hides the next. State, exit code, last probe and last log line of a service nearly always say which of them it is.",
        "Which program does a health check start, and is it in that image? What ends a process with exit code 137? Who has to be in which network to find `chroma` by its name?",
        "Chroma's image has bash: docker/stack/compose.yaml shows a probe with it. inference needs some hundred megabytes. rag belongs to both networks. And Chroma writes to /data: what is on the volume after `down`?",
    ),
)
def never_healthy(folder: Path) -> dict[str, object]:
    file = folder / "compose.yaml"
    for name in ("inference", "chroma", "rag"):
        require(
            name in checks.services(file),
            f"there is no service {name}",
            expected="the three of the file",
            look=file.name,
        )
    stack = checks.own(file, "mended")
    merged = checks.merged(stack)
    for name, service in merged.items():
        checks.require_health_check(name, service)
        checks.require_memory_limit(name, service)
    with checks.up(stack):
        checks.require_answers(stack, store=True)
        checks.require_survives(stack)
        return {"healthy": ", ".join(merged), "after down and up": "the document is still there, and is found"}


@exercise(
    LAB,
    "three-replicas",
    "Three replicas, and who answered",
    hints=(
        "A counter only grows, and has counted before you came: what you want is a difference. And a replica that has just started has no counter yet.",
        "`stack.prometheus.query('http_requests_total{…}')` gives a data frame with `instance` and `value`. Prometheus asks every two seconds, so wait until it has seen your last request: `stack.prometheus.wait_for(…)`.",
        '`sum by (instance) (http_requests_total{job="inference", route="/predict"})` before and after; in between `stack.scale(\'inference\', 3)` and `exercises.ask(stack)` as often as asked.',
    ),
)
def three_replicas(spread: Callable[[Stack, int], dict[str, float]]) -> dict[str, object]:
    require(
        callable(spread),
        f"the answer is {spread!r}",
        expected="a function of a stack and a number of requests",
        look="def",
    )
    stack = course_stack(stack_variables(), short="spread", profiles=())
    try:
        stack.up(services=("traces", "inference", "proxy", "prometheus"))
        before = checks.count_in_replicas(stack, "/predict")
        said = spread(stack, REQUESTS)
        own = checks.count_in_replicas(stack, "/predict")
        own = {address: count - before.get(address, 0) for address, count in own.items()}
        require(len(own) == 3, f"{len(own)} replicas run, and 3 were asked for", expected="3", look="stack.scale")
        require(
            isinstance(said, dict)
            and {str(k): round(float(v)) for k, v in said.items() if v} == {k: round(v) for k, v in own.items()},
            f"your function says {said}",
            expected=f"what the replicas say themselves: {own}",
            look="what the counters were before, and whether Prometheus had seen the last request",
        )
        require(
            sum(own.values()) == REQUESTS,
            f"{sum(own.values()):.0f} requests arrived",
            expected=f"{REQUESTS}",
            look="exercises.ask",
        )
        return {
            address: f"{count:.0f} of {REQUESTS} requests ({count / REQUESTS:.0%})" for address, count in own.items()
        }
    finally:
        stack.remove()


@exercise(
    LAB,
    "answer-cache",
    "A cache for answers, in Redis",
    files=True,
    hints=(
        "An override only says what differs. Compose lays the files over one another: for `rag` you write `environment` and `depends_on`, and the rest stays.",
        "The database's neighbours are on `back`, and rag is there. The health check of a Redis is `redis-cli ping`. Limits stand under deploy.resources.limits.",
        'command: ["redis-server", "--maxmemory", "32mb", "--maxmemory-policy", "allkeys-lru", "--save", ""]; for rag: environment: { CACHE_URL: redis://cache:6379/0 } and depends_on: { cache: { condition: service_healthy } }.',
    ),
)
def answer_cache(folder: Path) -> dict[str, object]:
    file = folder / "compose.cache.yaml"
    require("cache" in checks.services(file), "there is no service cache", expected="one of that name", look=file.name)
    stack = checks.cache_override(folder)
    merged = checks.merged(stack)
    cache, rag = merged["cache"], merged["rag"]
    image = stack.project.variables["CACHE_IMAGE"]
    require(
        cache.get("image") == image,
        f"the cache's image is {cache.get('image')}",
        expected="${CACHE_IMAGE}",
        look="image",
    )
    checks.require_health_check("cache", cache)
    checks.require_memory_limit("cache", cache, most=64 * 2**20)
    checks.require_no_ports("cache", cache)
    networks = sorted(cache.get("networks") or {})
    require(
        networks == ["back"],
        f"the cache is in {', '.join(networks)}",
        expected="the network of the database alone",
        look="networks",
    )
    require("CACHE_URL" in (rag.get("environment") or {}), "nobody told rag of the cache", expected="CACHE_URL in its environment", look="environment of rag")  # fmt: skip
    checks.require_waits_for("rag", rag, "cache")
    if "NGINX_IMAGE" not in stack_variables():
        ensure(stack.project, "cache-image")
    try:
        stack.up(services=("traces", "inference", "proxy", "chroma", "rag", "prometheus", "cache"))
    except CourseError as error:
        stack.remove()
        raise NotYet(
            f"{error.what}\n{error.why}", expected="a stack whose services are all healthy", look=error.do
        ) from None
    try:
        return _hits(stack)
    finally:
        stack.remove()


def _hits(stack: Stack) -> dict[str, object]:
    stack.rag.put("skerryvore.md", checks.DOCUMENT)
    first, second = (stack.rag.answer(checks.QUESTION) for _ in range(2))
    require(second.cached and not first.cached, "the second answer to the same question was made anew", expected="it comes from the cache", look="CACHE_URL, and the log of rag")  # fmt: skip
    hits = 'sum(rag_cache_requests_total{result="hit"})'
    counted = checks.eventually(lambda: stack.prometheus.value(hits) >= 1, what="the hit in Prometheus", timeout=20)
    require(counted, "Prometheus counts no hit", expected=f"{hits} of 1", look="the log of rag")
    keys = stack.execute("cache", "redis-cli", "dbsize").output
    require(keys.split()[-1] != "0", "Redis holds no key", expected="the answer", look="which Redis CACHE_URL names")
    fast = statistics.median(stack.rag.answer(checks.QUESTION).seconds["total"] for _ in range(5))
    stack.stop("cache")
    try:
        without = stack.rag.answer(checks.QUESTION)
    except CourseError as error:
        raise NotYet(f"without the cache: {error.what}\n{error.why}", expected="an answer all the same", look="rag's settings") from None  # fmt: skip
    return {
        "first answer": f"{first.seconds['total'] * 1000:.1f} ms",
        "from the cache": f"{fast * 1000:.1f} ms",
        "hits in Prometheus": f"{stack.prometheus.value(hits):.0f}",
        "with Redis stopped": f"answered in {without.seconds['total'] * 1000:.0f} ms, not from a cache",
    }


@exercise(
    LAB,
    "replica-alert",
    "An alert that does not fall silent",
    files=True,
    hints=(
        "Write the expression for one replica first, and try it in the cell above with `stack.prometheus.query(…)`. Then ask what it gives when there is nothing to count.",
        "`count(…)` and `sum(…)` of nothing are nothing, and nothing is not less than two. PromQL has a way to say *or else 0*.",
        '`(sum(up{job="inference"}) or vector(0)) < 2`, with `for: 4s`, under groups, rules, alert.',
    ),
)
def replica_alert(folder: Path) -> dict[str, object]:
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
    from course_lib.settings import settings

    override = settings().work_dir / "stack" / "rules-override.yaml"
    override.parent.mkdir(parents=True, exist_ok=True)
    mount = f"{folder}:/etc/prometheus/rules.d:ro"
    override.write_text(yaml.safe_dump({"services": {"prometheus": {"volumes": [mount]}}}))
    return override


@exercise(
    LAB,
    "in-a-terminal",
    "Scale and back up by hand",
    hints=(
        "Everything Compose needs stands in the env file of the table: with it, `docker compose` speaks to this very stack.",
        "`up` with --detach changes what differs and leaves the rest; --scale SERVICE=NUMBER says how many. `run --rm SERVICE …` starts a container once, for one command.",
        "`docker compose --env-file … up --detach --no-recreate --scale inference=2` and `docker compose --env-file … run --rm backup backup /backups/…`.",
    ),
)
def in_a_terminal() -> dict[str, object]:
    return stack_terminal.require_done()


@exercise(
    LAB,
    "own-stack",
    "Your own Compose file",
    files=True,
    deliverable=True,
    hints=(
        "You have read each part of it above. Start with one service that gets healthy, then the second, then the one that waits for both.",
        "What several services have in common can stand once, under a name that begins with x-, and be merged in with `<<: *name`. Two networks; the database's is internal.",
        "docker/stack/compose.yaml has it all, with more services: take out what yours need, and check each line you take.",
    ),
)
def own_stack(folder: Path) -> dict[str, object]:
    file = folder / "compose.yaml"
    for name in ("inference", "chroma", "rag"):
        require(
            name in checks.services(file),
            f"there is no service {name}",
            expected="inference, chroma and rag",
            look=file.name,
        )
    stack = checks.own(file, "own")
    services = checks.merged(stack)
    _require_signed(stack, services)
    began = time.monotonic()
    with checks.up(stack):
        started = time.monotonic() - began
        checks.require_answers(stack, store=True)
        _require_closed(stack, services)
        times = [checks.require_answers(stack, store=False) for _ in range(10)]
        stack.crash("rag")
        back = checks.eventually(lambda: all(one.well for one in stack.states()), what="", timeout=60)
        require(back, "rag was killed, and did not come back", expected="it starts again by itself", look="restart")
        checks.require_answers(stack, store=False)
        checks.require_survives(stack)
    return {
        "services": len(services),
        "up_until_healthy_seconds": round(started, 1),
        "answer_p50_milliseconds": round(statistics.median(times) * 1000, 1),
        "documents": "survive a crash, and down and up",
        "database": "not to be reached from inference; no way out",
        "hardened": "read-only, no capabilities, memory limits, key as a secret",
    }


def _require_signed(stack: Stack, services: dict[str, Any]) -> None:
    """What can be read from the merged configuration.

    Raises:
        NotYet: a part of it is missing.
    """
    for name, service in services.items():
        checks.require_health_check(name, service)
        checks.require_memory_limit(name, service)
        require(
            bool(service.get("read_only")),
            f"service {name} may write to its root",
            expected="read_only: true",
            look="read_only, tmpfs",
        )
        require(
            "ALL" in (service.get("cap_drop") or []),
            f"service {name} keeps its capabilities",
            expected="cap_drop: [ALL]",
            look="cap_drop",
        )
        require(service.get("restart") in ("always", "unless-stopped", "on-failure"), f"service {name} has no restart policy", expected="one that brings it back", look="restart")  # fmt: skip
        tag = str(service.get("image", "")).rpartition("/")[2]
        require(":" in tag and not tag.endswith(":latest"), f"service {name} runs {service.get('image')}", expected="an image with a version", look="image")  # fmt: skip
        if name != "rag":
            checks.require_no_ports(name, service)
    ports = services["rag"].get("ports") or []
    require(bool(ports), "rag has no port on the host", expected="port 8000, on 127.0.0.1", look="ports")
    require(all(port.get("host_ip") == "127.0.0.1" for port in ports), "rag is published on every address of this machine", expected="127.0.0.1 alone", look="ports")  # fmt: skip
    require(not any(port.get("published") not in (None, "", "0") for port in ports), "rag's port on the host is fixed", expected="one that Docker chooses", look="ports: 127.0.0.1::8000")  # fmt: skip
    for other in ("inference", "chroma"):
        checks.require_waits_for("rag", services["rag"], other)
    for name in ("inference", "rag"):
        require(
            bool(services[name].get("secrets")), f"{name} gets no secret", expected="the key as a file", look="secrets"
        )


def _require_closed(stack: Stack, services: dict[str, Any]) -> None:
    """What can only be seen on the running stack: the key is wanted, and the database is out of reach.

    Raises:
        NotYet: it is not.
    """
    for name, service in services.items():
        open_key = stack.key in str(service.get("environment") or {})
        require(not open_key, f"the key stands in the environment of {name}", expected="a secret", look="secrets")
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8080/models').status)"
    opened = stack.execute("inference", "python3", "-c", ask, check=False).output
    require(opened != "200", "inference answers without a key", expected="401 to who has none", look="API_KEYS_FILE")
    try:
        require_unreachable(stack, "chroma", 8000, from_="inference")
    except CourseError as error:
        raise NotYet(error.what, expected="a database that inference can't reach", look="networks") from None
    attached = [what for what in stack.project.config()["networks"].values() if what.get("internal")]
    require(bool(attached), "no network is internal", expected="the database's has no way out", look="internal: true")
