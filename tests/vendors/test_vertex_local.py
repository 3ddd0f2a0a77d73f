"""Vertex AI's own client (google-cloud-aiplatform's LocalModel) deploys the course's image to a local endpoint and asks it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from course_lib.images.server import Sample
from tests.vendors.conftest import Artefact, Drive, containers, is_ours, log

pytestmark = pytest.mark.docker
#: As Vertex AI's own are.
HEALTH, PREDICT = "/v1/endpoints/4410/deployedModels/44", "/v1/endpoints/4410/deployedModels/44:predict"
QUESTION = "What is a Docker image?"


@pytest.fixture(scope="module")
def seen(
    image: str, artefact: Artefact, digits: list[Sample], drive: Drive, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """One endpoint, asked everything."""
    rows = [list(each.pixels) for each in digits]
    file = tmp_path_factory.mktemp("vertex") / "instances.json"
    file.write_text(json.dumps({"instances": [*rows, [1, 2]]}))
    typed = {"headers": {"Content-Type": "application/json"}}
    text = {"instances": [QUESTION], "parameters": {"maxOutputTokens": 12}}
    job = {
        "model": {
            "serving_container_image_uri": image,
            "serving_container_predict_route": PREDICT,
            "serving_container_health_route": HEALTH,
            "serving_container_ports": [8441],
            "serving_container_environment_variables": {"LOG_LEVEL": "debug"},
        },
        "deploy": {"artifact_uri": str(artefact.folder), "container_ready_timeout": 60},
        "requests": {
            "file": {"request_file": str(file), **typed},
            "no type": {"request": json.dumps({"instances": rows})},
            "text": {"request": json.dumps(text), **typed},
            "chat": {
                "request": json.dumps({"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 12}),
                **typed,
            },
            "built in": {"request": json.dumps({"instances": rows, "parameters": {"model": "digits"}}), **typed},
        },
    }
    return drive("vertex_local.py", job)


def answer(seen: dict[str, Any], name: str, status: int = 200) -> dict[str, Any]:
    found = seen["answers"][name]
    assert found["status"] == status, found
    return dict(json.loads(found["text"]))


def test_health(seen: dict[str, Any]) -> None:
    assert (seen["health"]["status"], json.loads(seen["health"]["text"])) == (200, {"status": "ok"})


@pytest.mark.parametrize("how", ["file", "no type"])
def test_instances_are_answered_by_the_artefact(
    seen: dict[str, Any], how: str, artefact: Artefact, digits: list[Sample]
) -> None:
    answers = answer(seen, how)["predictions"]
    for each, digit in zip(answers, digits, strict=False):
        assert (each["model"], each["version"]) == (artefact.digits, "41")
        assert each["probabilities"] == pytest.approx(artefact.probabilities(digit.pixels), abs=1e-5)
    bad = [each["error"]["message"] for each in answers[len(digits) :]]
    assert bad == (["A row has 64 numbers; this one has 2."] if how == "file" else [])


def test_parameters(seen: dict[str, Any], artefact: Artefact) -> None:
    (text,) = answer(seen, "text")["predictions"]
    assert (text["model"], text["version"], text["usage"]["completion_tokens"]) == (artefact.tutor, "42", 12)
    chat = answer(seen, "chat")
    assert chat["model"] == f"{artefact.tutor}:42"
    assert chat["choices"][0]["message"]["content"] == text["text"]


def test_the_models_of_the_image_are_not_there(seen: dict[str, Any]) -> None:
    assert "The model 'digits' is not loaded" in answer(seen, "built in", 404)["error"]["message"]


def test_the_container_was_started_as_vertex_does(seen: dict[str, Any], image: str, artefact: Artefact) -> None:
    """This image with Vertex's variables; it answered on their routes and their port what the client says it asked."""
    (container,) = containers(image)
    assert container.id == seen["container"]
    assert is_ours(container)
    given = dict(each.split("=", 1) for each in container.attrs["Config"]["Env"])
    assert (given["AIP_HTTP_PORT"], given["AIP_HEALTH_ROUTE"], given["AIP_PREDICT_ROUTE"]) == ("8441", HEALTH, PREDICT)
    loaded = {mount["Destination"]: mount["Source"] for mount in container.attrs["Mounts"]}
    assert loaded[f"{given['AIP_STORAGE_URI']}/{artefact.digits}"] == str(artefact.folder / artefact.digits)
    asked = [(line["status"], line.get("model")) for line in log(container) if line.get("route") == PREDICT]
    classes, texts = (200, artefact.digits), (200, artefact.tutor)
    assert asked == [classes, classes, texts, texts, (404, None)]
    assert any(line.get("route") == HEALTH and line["status"] == 200 for line in log(container))


def test_the_client_stops_what_it_started(seen: dict[str, Any], image: str) -> None:
    """SIGTERM, and the server ends well; the container that the client leaves, the fixture `image` removes."""
    assert [each.wait(timeout=30)["StatusCode"] for each in containers(image)] == [0]


def test_nothing_left_this_machine(seen: dict[str, Any]) -> None:
    assert seen["refused"] == []
