"""The exercise never-ready: a colleague's manifests, mended until the server answers through its Service."""

from __future__ import annotations

import time
from pathlib import Path

from course_lib.cluster import manifests, serving
from course_lib.cluster.api import Object
from course_lib.errors import CourseError
from course_lib.exercises import cluster_checks as checks
from course_lib.exercises import cluster_scenes as scenes
from course_lib.exercises.cluster_checks import require
from course_lib.lab.exercise import STARTERS

NAME = "never-ready"
_KINDS = ("Deployment", "Service", "ConfigMap")
_MOST_MEMORY = 512 * 2**20


def see_it_fail() -> str:
    """Applies the colleague's manifests as they are, and returns what waiting for them ended in."""
    with scenes.room(scenes.ready_cluster(), NAME) as deployer:
        deployer.apply(manifests.read(STARTERS / "4.4.5" / NAME))
        try:
            deployer.wait(serving.DEPLOYMENT, timeout=90)
        except CourseError as error:
            return str(error)
    return "It got ready, which it never did before."


def require_mended(folder: Path) -> dict[str, object]:
    """Applies a learner's manifests in a room of their own, waits, and asks through their Service.

    Raises:
        NotYet: they don't get ready, don't answer, or got well by leaving out what matters.
    """
    found = checks.objects(folder, kinds=_KINDS)
    deployment = checks.named(found, "Deployment", serving.DEPLOYMENT)
    _require_nothing_left_out(deployment, checks.named(found, "Service", serving.SERVICE))
    cluster = scenes.ready_cluster()
    with scenes.room(cluster, NAME) as deployer:
        began = time.monotonic()
        checks.applied(deployer, found)
        checks.rolled_out(deployer)
        ready = time.monotonic() - began
        answer = checks.require_answers(deployer, cluster.address(scenes.EXERCISE_PORT), timeout=20)
        checks.require_probe(checks.server(deployment), "readinessProbe", "/ready")
        return {"ready after": f"{ready:.0f} s", "answer through the Service": answer, "without a key": "401"}


def _require_nothing_left_out(deployment: Object, service: Object) -> None:
    container = checks.server(deployment)
    image = checks.part(container, "image")
    require(
        image == serving.IMAGE,
        f"the container's image is {image}",
        expected=f"{serving.IMAGE}, which has been loaded onto the nodes",
        look="image",
    )
    for which in ("startupProbe", "readinessProbe", "livenessProbe"):
        require(
            bool(checks.part(container, which, "httpGet")),
            f"there is no {which} that asks the server",
            expected="one: without it nobody notices when the server is unwell",
            look=which,
        )
    require(
        checks.part(container, "readinessProbe", "httpGet", "path") != "/health",
        "the readinessProbe asks for /health, which answers 200 while the models are still being loaded",
        expected="the path that says whether it may get work",
        look="readinessProbe, and the server's routes: docker/inference-server/README.md",
    )
    limit = checks.limit(container, "memory")
    require(
        limit <= _MOST_MEMORY,
        f"the container may take {limit / 2**20:.0f} MiB",
        expected="at most 512: the nodes are small",
        look="resources.limits.memory",
    )
    variables = [checks.part(one, "name") for one in checks.part(container, "env") or []]
    require(
        "API_KEYS_FILE" in variables,
        "the server is no longer told where its keys are, and lets everybody in",
        expected="API_KEYS_FILE, with a file of the Secret",
        look="env, volumeMounts and volumes",
    )
    port = checks.part(service, "spec", "ports", 0, "nodePort")
    require(
        port == scenes.EXERCISE_PORT,
        f"the Service's nodePort is {port}",
        expected=f"{scenes.EXERCISE_PORT}, which leads outside",
        look="spec.ports of the Service",
    )
