"""SageMaker's contract over a real server: body and answer types, streaming, custom attributes, a model at /opt/ml/model."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import MODELS, Server

Samples = list[dict[str, Any]]
ATTRIBUTES = "X-Amzn-SageMaker-Custom-Attributes"


def invoke(server: Server, body: Any, status: int = 200, **headers: Any) -> httpx.Response:
    """POST /invocations; an object is sent as JSON. ``content_type`` becomes Content-Type."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {"content": body} if isinstance(body, bytes) else {"json": body}
    reply = server.client.post("/invocations", headers=named, **sent)
    assert reply.status_code == status, reply.text
    return reply


def lines(reply: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line) for line in reply.text.removesuffix("\n").split("\n")]


def as_csv(samples: Samples, header: str = "") -> bytes:
    return (header + "".join(",".join(map(str, sample["pixels"])) + "\n" for sample in samples)).encode()


def test_ping(server: Server) -> None:
    assert server.client.get("/ping").status_code == 200
    assert set(server.client.get("/execution-parameters").json()) == {
        "MaxConcurrentTransforms",
        "BatchStrategy",
        "MaxPayloadInMB",
    }


def test_instances(server: Server, samples: Samples) -> None:
    row = samples[0]["pixels"]
    reply = invoke(server, {"instances": [row, [1, 2], {"pixels": row}, {"inputs": row}, None]})
    found = reply.json()["predictions"]
    assert [item.get("predicted_class") for item in found] == [samples[0]["label"], None] + [
        samples[0]["label"]
    ] * 2 + [None]
    assert found[1]["error"]["message"] == "A row has 64 numbers; this one has 2."
    assert {(item["model"], item["version"]) for item in found} == {("digits", "2")}
    assert reply.headers[ATTRIBUTES] == "model=digits,version=2"
    old = invoke(server, {"instances": [row], "parameters": {"model": "digits", "version": 1}}).json()["predictions"]
    assert old[0]["version"] == "1"


def test_the_plain_body(server: Server, samples: Samples) -> None:
    row = samples[0]["pixels"]
    assert invoke(server, {"inputs": row}).json()["predicted_class"] == samples[0]["label"]
    assert invoke(server, {"inputs": row, "version": 1, "model": "digits"}).json()["version"] == "1"
    assert [item["index"] for item in invoke(server, {"inputs": [row]}).json()["predictions"]] == [0]
    assert invoke(server, {"inputs": "What is a pod?", "max_tokens": 4}).json()["usage"]["completion_tokens"] == 4


def test_hugging_faces_body(server: Server) -> None:
    body = {"inputs": "What is a Docker image?", "parameters": {"max_new_tokens": 6, "do_sample": False}}
    one = invoke(server, body).json()
    assert len(one) == 1
    assert one[0]["usage"]["completion_tokens"] == 6
    two = invoke(server, {**body, "inputs": [body["inputs"], "What is a pod?"]}).json()
    assert two[0]["generated_text"] == one[0]["generated_text"] != two[1]["generated_text"]


def test_a_chat(server: Server) -> None:
    messages = [
        {"role": "system", "content": "Answer in short."},
        {"role": "user", "content": "What is a Docker image?"},
    ]
    whole = invoke(server, {"messages": messages, "max_tokens": 20}).json()
    assert whole["model"] == "tutor:2"
    item = {"instances": [{"messages": messages}], "parameters": {"max_tokens": 20}}
    assert invoke(server, item).json()["predictions"][0]["text"] == whole["choices"][0]["message"]["content"]


@pytest.mark.parametrize("accept", ["", "text/event-stream", "*/*"])
def test_streaming(server: Server, accept: str) -> None:
    question = "What is a Docker image?"
    whole = invoke(server, {"inputs": question, "max_tokens": 12}).json()["text"]
    for body in (
        {"inputs": question, "max_tokens": 12, "stream": True},
        {"inputs": question, "parameters": {"max_new_tokens": 12}, "stream": True},
        {"messages": [{"role": "user", "content": question}], "max_tokens": 12, "stream": True},
    ):
        text = ""
        pieces = 0
        headers = {"Accept": accept} if accept else {}
        with server.client.stream("POST", "/invocations", json=body, headers=headers) as reply:
            assert reply.headers["content-type"].startswith("text/event-stream")
            assert reply.headers[ATTRIBUTES] == "model=tutor,version=2"
            for line in reply.iter_lines():
                if line.startswith("data: {"):
                    pieces += 1
                    text += json.loads(line[6:])["choices"][0]["delta"].get("content", "")
        assert text == whole
        assert pieces > 5


def test_json_lines(server: Server, samples: Samples) -> None:
    rows = [json.dumps(samples[0]["pixels"]), "{bad", "", "[1]", json.dumps({"inputs": samples[1]["pixels"]})]
    for kind in ("application/jsonlines", "application/x-ndjson; charset=UTF-8"):
        reply = invoke(server, "\n".join(rows).encode(), content_type=kind)
        assert reply.headers["content-type"] == "application/jsonlines"
        found = lines(reply)
        assert [item.get("predicted_class") for item in found] == [
            samples[0]["label"],
            None,
            None,
            None,
            samples[1]["label"],
        ]
        assert found[1]["error"]["message"].startswith("Line 2 is not JSON")
        assert found[3]["error"]["message"] == "A row has 64 numbers; this one has 1."
    texts = b'"What is a pod?"\n{"text": "What is a layer?"}\n5\n'
    attributes: dict[str, Any] = {ATTRIBUTES: "max_tokens=3; trace=5"}
    found = lines(invoke(server, texts, content_type="application/jsonlines", **attributes))
    assert [item.get("usage", {}).get("completion_tokens") for item in found] == [3, 3, None]
    # What the body says, in whichever word, counts more than the attributes.
    for body, tokens in (({}, 3), ({"max_tokens": 2}, 2), ({"parameters": {"max_new_tokens": 2}}, 2)):
        answer = invoke(server, {"inputs": "What is a pod?", **body}, **attributes).json()
        assert (answer[0] if isinstance(answer, list) else answer)["usage"]["completion_tokens"] == tokens


def test_csv(server: Server, samples: Samples) -> None:
    labels = [sample["label"] for sample in samples[:20]]
    for header in ("", ",".join(f"p{index}" for index in range(64)) + "\n", "\ufeff"):
        reply = invoke(server, as_csv(samples[:20], header), content_type="text/csv", accept="text/csv")
        assert reply.headers["content-type"] == "text/csv; charset=utf-8"
        found = list(csv.reader(reply.text.splitlines()))
        assert sum(line[0] == label for line, label in zip(found, labels, strict=True)) >= 19
        assert all(0.1 < float(line[1]) <= 1 for line in found)
    assert len(invoke(server, as_csv(samples[:3]), content_type="text/csv").json()["predictions"]) == 3
    bad = as_csv(samples[:2]) + b"1,2,x\n"
    assert [
        "error" in item for item in lines(invoke(server, bad, content_type="text/csv", accept="application/jsonlines"))
    ] == [False, False, True]
    said = invoke(server, bad, 422, content_type="text/csv", accept="text/csv").json()["error"]["message"]
    assert said.startswith("Item 3: A row is a list of 64 numbers, and this one holds something else. (1 of 3 failed;")
    latin = as_csv(samples[:1], "größe\n")  # one cell and no number: a header
    latin = latin.decode().encode("latin-1")
    assert invoke(server, latin, content_type="text/csv; charset=ISO-8859-1").json()["predictions"]
    invoke(server, latin, 400, content_type="text/csv")


@pytest.mark.parametrize(
    ("accept", "status", "kind"),
    [
        ("application/json;q=0.1, text/csv", 200, "text/csv"),
        ("text/*", 200, "text/csv"),
        ("application/*;q=0.2, application/jsonlines", 200, "application/jsonlines"),
        ("*/*, application/json;q=0", 200, "application/jsonlines"),
        ("image/png, */*;q=0.1", 200, "application/json"),
        ("image/png", 406, ""),
        ("application/json;q=0", 406, ""),
    ],
)
def test_accept(server: Server, samples: Samples, accept: str, status: int, kind: str) -> None:
    reply = invoke(server, {"instances": [samples[0]["pixels"]]}, status, accept=accept)
    if status == 200:
        assert reply.headers["content-type"].startswith(kind)
    else:
        assert (
            "can be answered as application/json or application/jsonlines or text/csv"
            in reply.json()["error"]["message"]
        )


@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b"x", {"content_type": "image/png"}, 415, "The body came as image/png: send application/json"),
        (b"{}", {"content_type": "application/json; charset=ebcdic"}, 415, "The charset 'ebcdic' is not read here"),
        (b"[" * 100_000, {"content_type": "application/json"}, 400, "nested too deep"),
        (b'{"inputs": "\xff"}', {"content_type": "application/json"}, 400, "can't be read as UTF-8"),
        (b"[1]", {"content_type": "application/json"}, 422, "The body is a JSON object"),
        (b"{}", {}, 422, "none of: instances, inputs, messages"),
        (b'{"instances": 5}', {}, 422, "instances is a list"),
        (b'{"instances": []}', {}, 422, "instances holds nothing"),
        (json.dumps({"instances": [[1]] * 257}).encode(), {}, 413, "There are 257 instances and this server takes 256"),
        (b'{"instances": ["x"], "parameters": {"max_toks": 3}}', {}, 422, "parameters.max_toks: Extra inputs"),
        (
            b'{"instances": ["x"], "parameters": {"stop": "x", "stopSequences": "y"}}',
            {},
            422,
            "mean the same: send one",
        ),
        (b'{"instances": ["x"], "parameters": {"max_tokens": "3"}}', {}, 422, "parameters.max_tokens: Input should be"),
        (b'{"inputs": "x", "stream": 1}', {}, 422, "stream is true or false"),
        (b'{"instances": ["x"], "parameters": 3}', {}, 422, "parameters: Input should be"),
        (b'{"instances": ["x"], "parameters": {"model": "cats"}}', {}, 404, "The model 'cats' is not loaded"),
        (b'{"inputs": [1], "stream": true}', {}, 422, "Only a text can be streamed"),
        (b'{"inputs": "\\ud800", "parameters": {}}', {}, 422, "half a character"),
        (b"1,2\n", {"content_type": "text/csv", ATTRIBUTES: "model=tutor"}, 415, "send texts as application/jsonlines"),
        (
            b'"x"\n',
            {"content_type": "application/jsonlines", ATTRIBUTES: "max_tokens=many"},
            422,
            "parameters.max_tokens",
        ),
        (b'{"instances": ["x"]}', {"accept": "text/csv"}, 406, "Texts are answered as"),
    ],
)
def test_bad_requests(server: Server, body: bytes, headers: dict[str, Any], status: int, said: str) -> None:
    assert said in invoke(server, body, status, **headers).json()["error"]["message"]


def test_custom_attributes(server: Server, samples: Samples) -> None:
    row = samples[0]["pixels"]
    attributes: dict[str, Any] = {ATTRIBUTES: "c000b4f9-df62; model=digits; version=1"}
    reply = invoke(server, {"inputs": row}, **attributes)
    assert reply.json()["version"] == "1"
    assert reply.headers[ATTRIBUTES] == "c000b4f9-df62; model=digits; version=1"


def test_a_models_folder_as_sagemaker_unpacks_it(tmp_path: Path, samples: Samples) -> None:
    shutil.copytree(MODELS / "digits" / "1", tmp_path / "model")
    with Server(SAGEMAKER_BASE_DIR=tmp_path) as running:
        assert invoke(running, {"inputs": samples[0]["pixels"]}).json()["version"] == "1"
        assert running.client.get("/ready").json()["models"] == ["digits:1"]
        assert running.client.get("/ping").status_code == 200
