"""SageMaker's local mode, as its users write it: model, endpoint config, endpoint, requests, a batch transform job, and all deleted again.

`python sagemaker_local.py JOB RESULT`: what to do and what was seen, both JSON.
"""

from __future__ import annotations

import loopback_only  # isort: skip  # before what it watches

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from sagemaker.core.local.local_session import LocalSession

NAME = "course"


def asked(session: LocalSession, request: dict[str, Any]) -> dict[str, Any]:
    """One request, and its answer piece by piece as it came."""
    answer = session.sagemaker_runtime_client.invoke_endpoint(EndpointName=NAME, **request)
    return {
        "status": answer["ResponseMetadata"]["HTTPStatusCode"],
        "headers": {name.lower(): value for name, value in answer["ResponseMetadata"]["HTTPHeaders"].items()},
        "pieces": [piece.decode() for piece in answer["Body"].stream()],
    }


def main(job: dict[str, Any]) -> dict[str, Any]:
    session = LocalSession()
    to_serve, to_transform = (
        {"local": {"serving_port": port, "container_root": job["folder"]}} for port in job["ports"]
    )
    session.config = to_serve
    client = session.sagemaker_client
    container = {"Image": job["image"], "ModelDataUrl": job["model"], "Environment": job["environment"]}
    client.create_model(ModelName=NAME, PrimaryContainer=container)
    variant = {"VariantName": "all", "ModelName": NAME, "InstanceType": "local", "InitialInstanceCount": 1}
    client.create_endpoint_config(EndpointConfigName=NAME, ProductionVariants=[variant])
    client.create_endpoint(EndpointName=NAME, EndpointConfigName=NAME)
    try:
        status = client.describe_endpoint(EndpointName=NAME)["EndpointStatus"]
        answers = {name: asked(session, request) for name, request in job["requests"].items()}
    finally:
        client.delete_endpoint(EndpointName=NAME)
    session.config = to_transform  # the endpoint's container may not be quite gone
    client.create_transform_job(TransformJobName=NAME, ModelName=NAME, **job["transform"])
    transform = client.describe_transform_job(TransformJobName=NAME)["TransformJobStatus"]
    client.delete_endpoint_config(EndpointConfigName=NAME)
    client.delete_model(ModelName=NAME)
    return {"status": status, "answers": answers, "transform": transform, "refused": loopback_only.refused}


if __name__ == "__main__":
    try:
        Path(sys.argv[2]).write_text(json.dumps(main(json.loads(Path(sys.argv[1]).read_text()))))
    except Exception:  # noqa: BLE001 (whatever it was)
        traceback.print_exc()
        os._exit(1)  # else its thread waits for a container that nobody stops
