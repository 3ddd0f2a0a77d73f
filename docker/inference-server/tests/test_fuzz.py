"""Whatever comes in, no contract answers with a 5xx: parsers fuzzed over the wire, by hypothesis."""

import json
from collections.abc import Iterator
from typing import Any

import grpc
import httpx
import pytest
from conftest import Server, free_port
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inference_server.answers import Parameters, kind_of
from inference_server.contracts.sagemaker import parameters_in, rows_of
from inference_server.contracts.tensors import from_raw
from inference_server.errors import RequestError

MODERATE = settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def fuzzed() -> Iterator[Server]:
    with Server(GRPC_PORT=free_port(), DEFAULT_NEW_TOKENS=2, MAX_NEW_TOKENS=4) as running:
        yield running
        assert running.client.get("/health").status_code == 200
        assert "Traceback" not in running.output()


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["digits", "tutor", "digits:1", "\ud800", "1", "\x00", "What is a pod?"])
)
ROW = st.lists(st.integers(-1, 17) | st.floats(0, 16), min_size=63, max_size=65)
WORDS = [
    "instances",
    "inputs",
    "parameters",
    "messages",
    "role",
    "content",
    "user",
    "model",
    "version",
    "stream",
    "max_tokens",
    "temperature",
    "top_p",
    "seed",
    "stop",
    "name",
    "shape",
    "datatype",
    "data",
    "outputs",
    "id",
    "binary_data_size",
    "binary_data_output",
    "pixels",
    "prompt",
    "text",
    "max_new_tokens",
    "do_sample",
    "response_format",
    "n",
]
VALUES = st.recursive(
    LEAVES | ROW,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=5), inner, max_size=5)
    ),
    max_leaves=12,
)
BODIES = st.dictionaries(st.sampled_from(WORDS), VALUES, max_size=5) | VALUES
TENSORS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["pixels", "prompt"]) | LEAVES,
        "shape": st.lists(st.integers(-1, 65) | st.sampled_from([2**62, 2**70]), max_size=3) | VALUES,
        "datatype": st.sampled_from(["FP32", "FP16", "UINT8", "INT64", "BOOL", "BYTES", "X"]) | LEAVES,
    },
    optional={
        "data": VALUES,
        "parameters": st.dictionaries(st.sampled_from(["binary_data_size"]), st.integers(-1, 300) | LEAVES, max_size=1),
    },
)
INFER = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, max_size=2) | VALUES},
    optional={
        "id": LEAVES,
        "parameters": st.dictionaries(
            st.sampled_from(["max_tokens", "binary_data_output", "seed"]) | st.text(max_size=3), LEAVES
        ),
        "outputs": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["label", "text"]) | LEAVES}), max_size=2),
    },
)
KINDS = st.sampled_from(
    [
        "application/json",
        "application/jsonlines",
        "text/csv",
        "text/csv; charset=utf-16",
        "application/json; charset=idna",
        ";;=",
        "",
    ]
)
ACCEPTS = st.sampled_from(
    ["", "*/*", "text/csv", "application/jsonlines;q=0.5", "a/b;q=x, */*;q=-1", ",;,", "text/event-stream"]
)


def encoded(value: Any) -> bytes:
    return json.dumps(value).encode()


CONTENT = (
    BODIES.map(encoded)
    | st.binary(max_size=200)
    | st.lists(VALUES.map(encoded) | st.binary(max_size=20), max_size=5).map(b"\n".join)
    | st.lists(ROW, max_size=4).map(lambda rows: "\n".join(",".join(map(str, row)) for row in rows).encode())
    | st.text(alphabet='0123456789.,"\n\r\x00-eaN', max_size=100).map(str.encode)
)


def check(reply: httpx.Response) -> None:
    assert reply.status_code < 500, (reply.status_code, reply.text)
    if reply.status_code >= 400:
        error = reply.json()["error"]
        assert error if isinstance(error, str) else error["message"]
    elif "jsonlines" in reply.headers["content-type"]:
        assert all(isinstance(json.loads(line), dict) for line in reply.text.removesuffix("\n").split("\n"))
    elif "json" in reply.headers["content-type"]:
        reply.json()


def send(server: Server, path: str, content: bytes, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Client.post(server.client, path, content=content, headers=named)


@MODERATE
@given(
    content=CONTENT,
    kind=KINDS,
    accept=ACCEPTS,
    attributes=st.sampled_from(["", "model=digits", "version=x;max_tokens=2", "=,;="]),
)
def test_sagemaker(fuzzed: Server, content: bytes, kind: str, accept: str, attributes: str) -> None:
    headers = {"Content_Type": kind, "Accept": accept, "X_Amzn_SageMaker_Custom_Attributes": attributes}
    check(send(fuzzed, "/invocations", content, **headers))


@MODERATE
@given(body=BODIES)
def test_json_bodies(fuzzed: Server, body: Any) -> None:
    for path in ("/invocations", "/vertex/predict", "/predict", "/batch_predict", "/v2/models/digits/infer"):
        check(send(fuzzed, path, encoded(body), Content_Type="application/json"))


@MODERATE
@given(body=INFER, tail=st.binary(max_size=300), off=st.integers(-2, 2), model=st.sampled_from(["digits", "tutor"]))
def test_tensors_over_http(fuzzed: Server, body: Any, tail: bytes, off: int, model: str) -> None:
    content = encoded(body)
    length = str(len(content) + (off if off in (-1, 1) else 0))
    check(send(fuzzed, f"/v2/models/{model}/infer", content + tail, Inference_Header_Content_Length=length))
    check(send(fuzzed, f"/v2/models/{model}/infer", content))


@MODERATE
@given(data=st.data())
def test_tensors_over_grpc(fuzzed: Server, data: st.DataObject) -> None:
    from tritonclient.grpc import service_pb2

    names = st.sampled_from(["digits", "tutor", "", "x"])
    request = service_pb2.ModelInferRequest(
        model_name=data.draw(names),
        model_version=data.draw(st.sampled_from(["", "1", "x"])),
        id=data.draw(st.text(max_size=3)),
    )
    for _ in range(data.draw(st.integers(0, 2))):
        tensor = request.inputs.add(
            name=data.draw(st.sampled_from(["pixels", "prompt", "x"])),
            datatype=data.draw(st.sampled_from(["FP32", "FP16", "UINT8", "BOOL", "BYTES", "X"])),
            shape=data.draw(st.lists(st.integers(-1, 65) | st.just(2**62), max_size=3)),
        )
        tensor.contents.fp32_contents.extend(data.draw(st.lists(st.floats(width=32), max_size=66)))
        tensor.contents.uint_contents.extend(data.draw(st.lists(st.integers(0, 2**32 - 1), max_size=3)))
        tensor.contents.bytes_contents.extend(data.draw(st.lists(st.binary(max_size=9), max_size=2)))
    request.raw_input_contents.extend(data.draw(st.lists(st.binary(max_size=260), max_size=2)))
    for name in data.draw(st.lists(st.sampled_from(["max_tokens", "seed", "x"]), max_size=2)):
        request.parameters[name].int64_param = data.draw(st.integers(-1, 5))
    sent = data.draw(st.just(request.SerializeToString()) | st.binary(max_size=100))
    with grpc.insecure_channel(f"127.0.0.1:{fuzzed.settings['GRPC_PORT']}") as channel:
        for method in ("ModelInfer", "ModelMetadata", "ModelReady"):
            try:
                channel.unary_unary(f"/inference.GRPCInferenceService/{method}")(sent, timeout=20)
            except grpc.RpcError as error:
                assert error.code().name in ("INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"), error


@MODERATE
@given(text=st.text(), raw=st.binary(), value=VALUES, shape=st.lists(st.integers(-1, 9), max_size=4))
def test_parsers_alone(text: str, raw: bytes, value: Any, shape: list[int]) -> None:
    """Each either understands or says in a RequestError what is wrong."""
    kind_of(value)
    for work in (
        lambda: rows_of(text),
        lambda: Parameters.read(value),
        lambda: Parameters.read(parameters_in(f"model={text},max_tokens={text}")),
        lambda: from_raw("x", "BYTES", shape, raw),
        lambda: from_raw("x", "FP16", shape, raw),
    ):
        try:
            work()
        except RequestError as error:
            assert error.status < 500
