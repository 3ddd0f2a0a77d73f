"""SageMaker's own client (sagemaker-core's LocalSession) serves the course's image, asks it over its contract, and transforms a batch."""

from __future__ import annotations

import json
import socket
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from course_lib.images.server import Sample
from tests.vendors.conftest import Artefact, Drive, containers, is_ours, log

pytestmark = pytest.mark.docker
ATTRIBUTES = "x-amzn-sagemaker-custom-attributes"
QUESTION = "What is a Docker image?"


@dataclass(frozen=True)
class Seen:
    """What the client saw, and the folder that it was given to work in."""

    found: dict[str, Any]
    folder: Path
    transformed: str

    def answer(self, name: str, status: int = 200) -> str:
        answer = self.found["answers"][name]
        assert answer["status"] == status, answer
        return "".join(answer["pieces"])

    def header(self, name: str, header: str) -> str:
        return str(self.found["answers"][name]["headers"].get(header))


def as_csv(digits: list[Sample]) -> str:
    return "".join(",".join(map(str, each.pixels)) + "\n" for each in digits)


@pytest.fixture(scope="module")
def seen(
    image: str, artefact: Artefact, digits: list[Sample], drive: Drive, tmp_path_factory: pytest.TempPathFactory
) -> Seen:
    """One endpoint, asked everything, and one transform job."""
    folder = tmp_path_factory.mktemp("sagemaker")
    for name in ("model", "work", "input", "output"):
        (folder / name).mkdir()
        (folder / name).chmod(0o755)
    with tarfile.open(folder / "model" / "model.tar.gz", "w:gz") as archive:
        archive.add(artefact.folder, ".")
    (folder / "input" / "rows.csv").write_text(as_csv(digits))

    def as_json(body: dict[str, Any], **more: str) -> dict[str, Any]:
        return {"Body": json.dumps(body), "ContentType": "application/json", **more}

    rows = [list(each.pixels) for each in digits]
    text = {"inputs": QUESTION, "parameters": {"max_new_tokens": 12}}
    lines = "".join(json.dumps(row) + "\n" for row in [*rows, [1, 2]])
    with socket.socket() as one, socket.socket() as other:
        for probe in (one, other):
            probe.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1], other.getsockname()[1]]
    job = {
        "image": image,
        "model": f"file://{folder}/model/model.tar.gz",
        "environment": {"LOG_LEVEL": "debug"},
        "folder": str(folder / "work"),
        "ports": ports,
        "requests": {
            "json": as_json({"instances": rows}),
            "csv": {"Body": as_csv(digits), "ContentType": "text/csv", "Accept": "text/csv"},
            "lines": {"Body": lines, "ContentType": "application/jsonlines", "Accept": "application/jsonlines"},
            "text": as_json(text),
            "stream": as_json({**text, "stream": True}),
            "built in": as_json({"instances": rows}, CustomAttributes="model=digits"),
            "no type": {"Body": "5", "ContentType": "image/png"},
        },
        "transform": {
            "TransformInput": {
                "DataSource": {"S3DataSource": {"S3Uri": f"file://{folder}/input"}},
                "ContentType": "text/csv",
                "SplitType": "Line",
            },
            "TransformOutput": {"S3OutputPath": f"file://{folder}/output", "Accept": "text/csv"},
            "TransformResources": {"InstanceType": "local"},
            "BatchStrategy": "MultiRecord",  # left out, the client asks the container and then can't read AWS's own word for it
        },
    }
    found = drive("sagemaker_local.py", job)
    return Seen(found, folder, (folder / "output" / "rows.csv.out").read_text())


@pytest.fixture
def expected(artefact: Artefact, digits: list[Sample]) -> list[str]:
    """The shuffled labels that this artefact, and no other model, gives."""
    scores = [artefact.probabilities(each.pixels) for each in digits]
    return [max(each, key=each.__getitem__) for each in scores]


def test_json_is_answered_by_the_artefact(
    seen: Seen, artefact: Artefact, digits: list[Sample], expected: list[str]
) -> None:
    answers = json.loads(seen.answer("json"))["predictions"]
    assert [each["predicted_class"] for each in answers] == expected
    for each, digit in zip(answers, digits, strict=True):
        assert (each["model"], each["version"]) == (artefact.digits, "41")
        assert each["probabilities"] == pytest.approx(artefact.probabilities(digit.pixels), abs=1e-5)
    assert seen.header("json", ATTRIBUTES) == f"model={artefact.digits},version=41"


def test_csv(seen: Seen, expected: list[str]) -> None:
    assert seen.header("csv", "content-type").startswith("text/csv")
    assert [line.split(",")[0] for line in seen.answer("csv").splitlines()] == expected


def test_json_lines_with_one_that_is_bad(seen: Seen, expected: list[str]) -> None:
    *good, bad = map(json.loads, seen.answer("lines").splitlines())
    assert [each["predicted_class"] for each in good] == expected
    assert bad["error"]["message"] == "A row has 64 numbers; this one has 2."


def test_text_comes_whole_and_in_pieces(seen: Seen, artefact: Artefact) -> None:
    (whole,) = json.loads(seen.answer("text"))
    assert (whole["model"], whole["usage"]["completion_tokens"]) == (artefact.tutor, 12)
    assert seen.header("stream", "content-type").startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in seen.answer("stream").splitlines() if line.startswith("data: ")]
    assert events.pop() == "[DONE]"
    deltas = [choice["delta"] for event in events for choice in json.loads(event)["choices"]]
    assert "".join(each.get("content", "") for each in deltas) == whole["generated_text"]
    assert len(seen.found["answers"]["stream"]["pieces"]) > 3  # chunks as they came, not one body at the end


def test_the_models_of_the_image_are_not_there(seen: Seen) -> None:
    assert "The model 'digits' is not loaded" in json.loads(seen.answer("built in", 404))["error"]["message"]


def test_what_is_refused_reaches_the_caller(seen: Seen) -> None:
    assert "image/png" in json.loads(seen.answer("no type", 415))["error"]["message"]


def test_a_batch_is_transformed(seen: Seen, expected: list[str]) -> None:
    assert seen.found["transform"] == "Completed"
    assert [line.split(",")[0] for line in seen.transformed.splitlines()] == expected


def test_the_container_was_started_as_sagemaker_does(seen: Seen, image: str, artefact: Artefact) -> None:
    """Both were this image, told `serve`, with the artefact unpacked at /opt/ml/model; they answered what the client says it asked."""
    assert seen.found["status"] == "InService"
    serving, transforming = sorted(containers(image), key=lambda each: str(each.attrs["Created"]))
    for container in (serving, transforming):
        assert is_ours(container)
        assert container.attrs["Args"][-1] == "serve"
        (mount,) = container.attrs["Mounts"]
        assert (mount["Destination"], mount["Source"]) == ("/opt/ml/model", str(seen.folder / "model"))
        assert any({"route": "/ping", "status": 200}.items() <= line.items() for line in log(container))
    asked = [(line["status"], line.get("model")) for line in log(serving) if line.get("route") == "/invocations"]
    classes, texts = (200, artefact.digits), (200, artefact.tutor)
    assert asked == [classes, classes, classes, texts, texts, (404, None), (415, None)]
    assert [line["status"] for line in log(transforming) if line.get("route") == "/invocations"] == [200]


def test_the_client_stops_what_it_started(seen: Seen, image: str) -> None:
    """It tells Compose twice, and the second time means now: as often as not the container is killed (137) while it ends well (0)."""
    ended = [each.wait(timeout=30)["StatusCode"] for each in containers(image)]
    assert len(ended) == 2 and set(ended) <= {0, 137}
    assert list((seen.folder / "work").iterdir()) == []


def test_nothing_left_this_machine(seen: Seen) -> None:
    assert seen.found["refused"] == []
