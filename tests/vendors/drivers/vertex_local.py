"""Vertex AI's local model, as its users write it: an image with its routes, deployed to a local endpoint with an artefact, and asked.

`python vertex_local.py JOB RESULT`: what to do and what was seen, both JSON.
"""

from __future__ import annotations

import loopback_only  # isort: skip  # before what it watches

import json
import sys
from pathlib import Path
from typing import Any

from google.cloud import aiplatform
from google.cloud.aiplatform.prediction import LocalModel


def main(job: dict[str, Any]) -> dict[str, Any]:
    aiplatform.init(project="nobodys")  # else it looks for credentials that name one
    model = LocalModel(**job["model"])
    with model.deploy_to_local_endpoint(**job["deploy"]) as endpoint:
        container, health = endpoint.container.id, endpoint.run_health_check()
        answers = {}
        for name, request in job["requests"].items():
            answer = endpoint.predict(**request)
            answers[name] = {"status": answer.status_code, "text": answer.text}
    return {
        "container": container,
        "health": {"status": health.status_code, "text": health.text},
        "answers": answers,
        "refused": loopback_only.refused,
    }


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
