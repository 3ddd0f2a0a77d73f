"""A small Deployment that the tests start and break, and whether anybody answers."""

from __future__ import annotations

from typing import Any

import httpx

from course_lib import waits

Object = dict[str, Any]


def get(path: str, *, port: int = 8080) -> Object:
    """A probe by HTTP that notices within a second what refuses it or answers otherwise; a slow answer is none of it."""
    return {"httpGet": {"path": path, "port": port}, "periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 1}


def web(
    name: str, image: str, *, replicas: int = 1, container: Object | None = None, pod: Object | None = None,
    labels: Object | None = None,
) -> Object:  # fmt: skip
    """A Deployment of Python's own web server.

    Args:
        container: fields that its container has otherwise.
        pod: fields that its pods have otherwise.
        labels: that the Deployment and its pods carry, too.
    """
    marks = {"app": name, **(labels or {})}
    main = {
        "name": "web",
        "image": image,
        "command": ["python3", "-u", "-m", "http.server", "8080", "--directory", "/etc/ssl"],
        "ports": [{"containerPort": 8080}],
        "readinessProbe": get("/"),
        "resources": {"requests": {"cpu": "5m"}},
    }
    spec = {"terminationGracePeriodSeconds": 1, "containers": [main | (container or {})], **(pod or {})}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": marks},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": marks}, "spec": spec},
        },
    }


def silent(address: str) -> None:
    """Nobody answers there any more: the nodes follow a Service by a moment, and a slow answer is one."""
    try:
        httpx.get(f"{address}/health", timeout=10, trust_env=False)
    except httpx.ReadTimeout:
        raise waits.NotYet("somebody is slow") from None
    except httpx.HTTPError:
        return
    raise waits.NotYet("somebody answers")
