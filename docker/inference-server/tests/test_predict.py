"""/predict and /batch_predict over a real server: answers, versions, and errors an item can have."""

import json
from typing import Any

import pytest
from conftest import Server

Samples = list[dict[str, Any]]


def post(server: Server, path: str, body: Any, status: int = 200) -> dict[str, Any]:
    reply = server.client.post(path, json=body)
    assert reply.status_code == status, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def share_right(server: Server, samples: Samples, version: int) -> float:
    body = {"inputs": [sample["pixels"] for sample in samples], "model": "digits", "version": version}
    answer = post(server, "/batch_predict", body)
    assert (answer["version"], answer["count"], answer["failed"]) == (str(version), len(samples), 0)
    pairs = zip(answer["predictions"], samples, strict=True)
    return sum(bool(item["predicted_class"] == sample["label"]) for item, sample in pairs) / len(samples)


def test_one_row(server: Server, samples: Samples) -> None:
    reply = server.client.post("/predict", json={"inputs": samples[0]["pixels"]})
    answer = reply.json()
    assert answer["predicted_class"] == samples[0]["label"]
    assert answer["confidence"] == max(answer["probabilities"].values()) > 0.5
    assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-4)
    assert (answer["model"], answer["version"]) == ("digits", "2")
    assert (reply.headers["x-model-name"], reply.headers["x-model-version"]) == ("digits", "2")
    assert len(answer["prediction_id"]) == 32
    assert 0 < answer["inference_ms"] < 1000
    wrapped = post(server, "/predict", {"inputs": [samples[0]["pixels"]]})
    assert wrapped["probabilities"] == answer["probabilities"]
    assert wrapped["prediction_id"] != answer["prediction_id"]


def test_the_direct_way_answers_as_the_route(server: Server, samples: Samples) -> None:
    """With a charset a body goes FastAPI's way; nobody may see a difference, in answers or errors."""

    def both(body: dict[str, Any]) -> list[tuple[int, list[str], dict[str, Any]]]:
        seen = []
        for kind in ("application/json", "application/json; charset=utf-8"):
            reply = server.client.post("/predict", content=json.dumps(body), headers={"Content-Type": kind})
            changing = ("prediction_id", "inference_ms")
            answer = {name: value for name, value in reply.json().items() if name not in changing}
            seen.append((reply.status_code, sorted(reply.headers), answer))
        return seen

    row = samples[0]["pixels"]
    wishes: list[dict[str, Any]] = [
        {},
        {"version": 1.0},
        {"model": "cats"},
        {"version": True},
        {"stop": ["a"] * 9},
        {"topP": 1, "top_p": 1},
    ]
    statuses = []
    for more in wishes:
        direct, route = both({"inputs": row, **more})
        assert direct == route
        statuses.append(direct[0])
    assert statuses == [200, 200, 404, 422, 422, 422]
    direct, route = both({"inputs": "What is a Pod? \u00e9", "max_tokens": 8, "temperature": 0})
    assert direct == route


def test_version_two_is_measurably_better(server: Server, samples: Samples) -> None:
    assert share_right(server, samples, 1) + 0.05 < share_right(server, samples, 2) > 0.95


def test_versions_by_name(server: Server, samples: Samples) -> None:
    row = samples[0]["pixels"]
    assert post(server, "/predict", {"inputs": row, "model": "digits:1"})["version"] == "1"
    assert post(server, "/predict", {"inputs": row, "model": "digits", "version": "1"})["version"] == "1"
    said = post(server, "/predict", {"inputs": row, "model": "digits", "version": 3}, 404)["error"]["message"]
    assert said == "digits has no version '3'; loaded: 1, 2."
    said = post(server, "/predict", {"inputs": row, "model": "cats"}, 404)["error"]["message"]
    assert said == "The model 'cats' is not loaded; loaded: digits:1, digits:2, embedder:1, tutor:1, tutor:2."
    post(server, "/predict", {"inputs": row, "model": "digits:1", "version": 2}, 422)


def test_one_bad_item_does_not_spoil_the_others(server: Server, samples: Samples) -> None:
    row = samples[1]["pixels"]
    answer = post(server, "/batch_predict", {"inputs": [row, [1, 2], "x", None, [99] * 64, row]})
    assert [("error" in item) for item in answer["predictions"]] == [False, True, True, True, True, False]
    assert [item["index"] for item in answer["predictions"]] == list(range(6))
    assert answer["failed"] == 4
    assert answer["predictions"][0]["probabilities"] == answer["predictions"][5]["probabilities"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([0] * 63, "A row has 64 numbers; this one has 63."),
        ([[0] * 8] * 8, "/predict takes one input and got 8: use /batch_predict."),
        ([0] * 63 + [17], "Number 64 of the row is 17; this model takes 0 to 16."),
        ([0] * 63 + ["1"], "A row is a list of 64 numbers, and this one holds something else."),
        ([0] * 63 + [True], "A row is a list of 64 numbers, and this one holds something else."),
        ([0] * 63 + [None], "A row holds a number that is not finite."),
        ([0] * 63 + [10**400], "A row is a list of 64 numbers, and this one holds something else."),
        ([], "A row has 64 numbers; this one has 0."),
        (7, "A row is a list of 64 numbers."),
        ({"a": 1}, "A row is a list of 64 numbers."),
    ],
)
def test_bad_rows(server: Server, row: object, said: str) -> None:
    assert post(server, "/predict", {"inputs": row}, 422)["error"]["message"] == said


def test_text(server: Server) -> None:
    answer = post(server, "/predict", {"inputs": "What is a Docker image?", "max_tokens": 10})
    assert (answer["model"], answer["version"]) == ("tutor", "2")
    assert answer["text"]
    assert answer["usage"]["completion_tokens"] <= 10
    batch = post(server, "/batch_predict", {"inputs": ["What is a layer?", "", 5, "What is a pod?"], "max_tokens": 10})
    assert [("error" in item) for item in batch["predictions"]] == [False, True, True, False]
    said = post(server, "/predict", {"inputs": "Hello", "model": "digits"}, 422)["error"]["message"]
    assert said == "A row is a list of 64 numbers."
    post(server, "/predict", {"inputs": [1, 2], "model": "tutor"}, 422)


def test_batch_limits(server: Server) -> None:
    said = post(server, "/batch_predict", {"inputs": [[0]] * 257}, 413)["error"]["message"]
    assert said == "There are 257 inputs and this server takes 256: send them in parts."
    post(server, "/batch_predict", {"inputs": []}, 422)
    post(server, "/batch_predict", {"inputs": "x"}, 422)
    post(server, "/batch_predict", {}, 422)
