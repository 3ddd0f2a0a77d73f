"""The Open Inference Protocol, asked by Triton's public client over HTTP and gRPC."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from conftest import ROOT, Server, free_port, run, wait_for
from test_manners import half_sent
from tritonclient.grpc import service_pb2
from tritonclient.utils import InferenceServerException

Samples = list[dict[str, Any]]


@pytest.fixture(scope="module")
def oip() -> Iterator[Server]:
    with Server(GRPC_PORT=free_port(), DRAIN_SECONDS=5) as running:
        yield running


@pytest.fixture(scope="module", params=["http", "grpc"])
def client(request: pytest.FixtureRequest, oip: Server) -> Iterator[Any]:
    """Triton's client; ``client.module`` has its InferInput and InferRequestedOutput."""
    module = tritonclient.http if request.param == "http" else tritonclient.grpc
    port = oip.port if request.param == "http" else oip.settings["GRPC_PORT"]
    made = module.InferenceServerClient(f"127.0.0.1:{port}")
    made.module = module
    yield made
    made.close()


def tensor(client: Any, name: str, values: Any, datatype: str) -> Any:
    made = client.module.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def pixels(samples: Samples, dtype: Any = np.float32) -> Any:
    return np.array([sample["pixels"] for sample in samples], dtype)


def test_health_and_metadata(client: Any, oip: Server) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("digits", "1")
    assert not client.is_model_ready("digits", "7") if client.module is tritonclient.http else True
    about = client.get_model_metadata(
        "digits", "2", **({} if client.module is tritonclient.http else {"as_json": True})
    )
    assert about["name"] == "digits"
    assert about["versions"] == ["1", "2"]
    assert [item["name"] for item in about["inputs"]] == ["pixels"]
    assert [int(size) for item in about["inputs"] for size in item["shape"]] == [-1, 64]
    assert [(item["name"], item["datatype"]) for item in about["outputs"]] == [
        ("label", "BYTES"),
        ("probabilities", "FP32"),
    ]


@pytest.mark.parametrize(
    ("datatype", "dtype"), [("FP32", "f4"), ("FP64", "f8"), ("UINT8", "u1"), ("INT64", "i8"), ("FP16", "f2")]
)
def test_rows(client: Any, samples: Samples, datatype: str, dtype: str) -> None:
    answer = client.infer("digits", [tensor(client, "pixels", pixels(samples, dtype), datatype)], request_id="id-7")
    labels = [label.decode() for label in answer.as_numpy("label")]
    assert np.mean([label == sample["label"] for label, sample in zip(labels, samples, strict=True)]) > 0.95
    probabilities = answer.as_numpy("probabilities")
    assert probabilities.shape == (len(samples), 10)
    assert np.allclose(probabilities.sum(1), 1, atol=1e-4)
    said = answer.get_response()
    assert (said["id"] if isinstance(said, dict) else said.id) == "id-7"
    assert (said["model_version"] if isinstance(said, dict) else said.model_version) == "2"


def test_versions_differ(client: Any, samples: Samples) -> None:
    rows = [tensor(client, "pixels", pixels(samples), "FP32")]
    wanted = [client.module.InferRequestedOutput("label")]
    found = [client.infer("digits", rows, model_version=version, outputs=wanted) for version in ("1", "2")]
    assert (found[0].as_numpy("label") != found[1].as_numpy("label")).any()
    assert found[0].as_numpy("probabilities") is None


def test_as_json_and_as_bytes(oip: Server, samples: Samples) -> None:
    client = tritonclient.http.InferenceServerClient(f"127.0.0.1:{oip.port}")
    found = []
    for sent in (True, False):
        for got in (True, False):
            rows = tritonclient.http.InferInput("pixels", [3, 64], "FP32")
            rows.set_data_from_numpy(pixels(samples[:3]), binary_data=sent)
            wanted = [
                tritonclient.http.InferRequestedOutput(name, binary_data=got) for name in ("probabilities", "label")
            ]
            answer = client.infer("digits", [rows], outputs=wanted)
            found.append((answer.as_numpy("label").tolist(), answer.as_numpy("probabilities").tolist()))
    for labels, probabilities in found:
        assert [str(label).strip("b'") for label in labels] == [str(label).strip("b'") for label in found[0][0]]
        assert np.allclose(probabilities, found[0][1])
    client.close()


def test_nested_and_flat_json(oip: Server, samples: Samples) -> None:
    row = samples[0]["pixels"]
    for data in (row, [row], [[row[:32], row[32:]]]):
        body = {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": data}]}
        reply = oip.client.post("/v2/models/digits/versions/2/infer", json=body)
        assert reply.json()["outputs"][0] == {
            "name": "label",
            "datatype": "BYTES",
            "shape": [1],
            "data": [samples[0]["label"]],
        }
        assert reply.headers["x-model-version"] == "2"


def test_prompts(client: Any, oip: Server) -> None:
    prompts = np.array([b"What is a Docker image?", b"What is a pod?"], object)
    answer = client.infer("tutor", [tensor(client, "prompt", prompts, "BYTES")], parameters={"max_tokens": 8})
    plain = oip.client.post("/predict", json={"inputs": "What is a Docker image?", "max_tokens": 8}).json()
    assert answer.as_numpy("text")[0].decode() == plain["text"]
    assert [reason.decode() for reason in answer.as_numpy("finish_reason")] == ["length", "length"]


def test_refusals(client: Any, samples: Samples) -> None:
    rows = pixels(samples[:2])
    texts = np.array([b"x"], object)
    wrong = rows.copy()
    wrong[1, 3] = 17
    cases: list[tuple[str, Any, str, dict[str, Any], str]] = [
        ("cats", tensor(client, "pixels", rows, "FP32"), "", {}, "The model 'cats' is not loaded"),
        ("digits", tensor(client, "pixels", rows, "FP32"), "9", {}, "digits has no version '9'"),
        ("digits", tensor(client, "pixel", rows, "FP32"), "", {}, "takes one input, 'pixels'"),
        (
            "digits",
            tensor(client, "pixels", rows[:, :5].copy(), "FP32"),
            "",
            {},
            "Row 1: A row has 64 numbers; this one has 5.",
        ),
        ("digits", tensor(client, "pixels", wrong, "FP32"), "", {}, "Row 2: Number 4 of the row is 17"),
        (
            "digits",
            tensor(client, "pixels", wrong * np.nan, "FP32"),
            "",
            {},
            "Row 1: A row holds a number that is not finite.",
        ),
        ("digits", tensor(client, "pixels", texts, "BYTES"), "", {}, "takes FP32 and the request has BYTES"),
        ("digits", tensor(client, "pixels", np.zeros((257, 64), "f4"), "FP32"), "", {}, "The batch has 257 rows"),
        ("digits", tensor(client, "pixels", np.zeros((0, 64), "f4"), "FP32"), "", {}, "has no rows"),
        ("tutor", tensor(client, "prompt", rows, "FP32"), "", {}, "takes BYTES [n]"),
        ("tutor", tensor(client, "prompt", np.array([b"\xff"], object), "BYTES"), "", {}, "A prompt is not UTF-8."),
        ("tutor", tensor(client, "prompt", texts, "BYTES"), "", {"max_toks": 5}, "parameters.max_toks"),
        ("tutor", tensor(client, "prompt", texts, "BYTES"), "", {"max_tokens": 9999}, "this server gives at most 512"),
        (
            "tutor",
            tensor(client, "prompt", np.array([b"x", b" "], object), "BYTES"),
            "",
            {},
            "Row 2: tutor:2 takes a text",
        ),
    ]
    for model, sent, version, parameters, said in cases:
        with pytest.raises(InferenceServerException) as refused:
            client.infer(model, [sent], model_version=version, parameters=parameters or None)
        assert said in refused.value.message(), refused.value
    with pytest.raises(InferenceServerException, match="has no output 'score'"):
        client.infer(
            "digits",
            [tensor(client, "pixels", rows, "FP32")],
            outputs=[client.module.InferRequestedOutput("score")],
        )


@pytest.mark.parametrize(
    ("content", "length", "said"),
    [
        (b"{}", "99", "is not a length within the body"),
        (b"{}", "-1", "is not a length within the body"),
        (b"{}", None, "inputs: Field required"),
        (b"[]", None, "Input should be"),
        (b"{", None, "The body is not JSON"),
        (b"\xff", None, "can't be read as JSON in UTF-8"),
        (b'{"inputs": []}abc', "14", "3 bytes that belong to no input"),
        (b'{"inputs": [{"name": "pixels", "datatype": "FP32", "shape": [1], "data": ["x"]}]}', None, "not all numbers"),
        (
            b'{"inputs": [{"name": "pixels", "datatype": "FP32", "shape": [2], "data": [1]}]}',
            None,
            "1 elements; its shape takes 2",
        ),
        (
            b'{"inputs": [{"name": "pixels", "datatype": "UINT8", "shape": [1], "data": [300]}]}',
            None,
            "do not fit UINT8",
        ),
        (
            b'{"inputs": [{"name": "pixels", "datatype": "TF32", "shape": [1], "data": [1]}]}',
            None,
            "datatype 'TF32': use one of",
        ),
        (
            b'{"inputs": [{"name": "pixels", "datatype": "FP32", "shape": [], "data": [1]}]}',
            None,
            "shape with no or too many",
        ),
        (b'{"inputs": [{"name": "pixels", "datatype": "FP32", "shape": [1]}]}', None, "has no list of data"),
    ],
)
def test_bad_bodies(oip: Server, content: bytes, length: str | None, said: str) -> None:
    headers = {"Content-Type": "application/octet-stream"} | (
        {"Inference-Header-Content-Length": length} if length else {}
    )
    reply = oip.client.post("/v2/models/digits/infer", content=content, headers=headers)
    assert reply.status_code == 400 or (reply.status_code == 422)
    assert said in reply.json()["error"]
    assert set(reply.json()) == {"error"}


def test_errors_have_the_protocols_shape_everywhere(oip: Server) -> None:
    assert oip.client.get("/v2/nothing").json() == {
        "error": "There is nothing at /v2/nothing; /openapi.json lists the routes."
    }
    assert oip.client.get("/v2/models/cats").status_code == 404
    assert oip.client.delete("/v2/models/digits").status_code == 405
    large = oip.client.post("/v2/models/digits/infer", content=b"x" * 2_000_000)
    assert large.status_code == 413
    assert large.json() == {"error": "The body is larger than 1,048,576 bytes: send less at a time."}


def test_grpc_statuses_and_fields_of_types(oip: Server, samples: Samples) -> None:
    """What Triton's client hides: statuses, typed contents, a size limit, an unknown method, a deadline."""
    with grpc.insecure_channel(f"127.0.0.1:{oip.settings['GRPC_PORT']}") as channel:

        def call(name: str, request: Any, answer: Any = None, **options: Any) -> Any:
            send = channel.unary_unary(
                f"/inference.GRPCInferenceService/{name}",
                request_serializer=lambda value: value if isinstance(value, bytes) else value.SerializeToString(),
                response_deserializer=answer.FromString if answer else None,
            )
            return send(request, timeout=options.get("timeout", 10))

        def status(name: str, request: Any, **options: Any) -> str:
            with pytest.raises(grpc.RpcError) as refused:
                call(name, request, **options)
            return str(refused.value.code().name)

        infer = service_pb2.ModelInferRequest
        row = infer.InferInputTensor(name="pixels", datatype="FP32", shape=[1, 64])
        row.contents.fp32_contents.extend(samples[0]["pixels"])
        answer = call("ModelInfer", infer(model_name="digits", inputs=[row], id="7"), service_pb2.ModelInferResponse)
        assert answer.outputs[0].contents.bytes_contents[0].decode() == samples[0]["label"]
        assert len(answer.outputs[1].contents.fp32_contents) == 10
        assert not answer.raw_output_contents
        assert answer.id == "7"
        assert status("ModelInfer", infer(model_name="cats")) == "NOT_FOUND"
        assert status("ModelInfer", infer()) == "INVALID_ARGUMENT"
        assert status("ModelInfer", b"\xff\xff") == "INVALID_ARGUMENT"
        assert status("ModelInfer", b"\x00" * 2_000_000) == "RESOURCE_EXHAUSTED"
        assert status("ModelReady", service_pb2.ModelReadyRequest(name="digits", version="9")) == "NOT_FOUND"
        assert status("ModelConfig", b"") == "UNIMPLEMENTED"
        assert (
            status("ModelInfer", infer(model_name="digits", inputs=[row], raw_input_contents=[b"1", b"2"]))
            == "INVALID_ARGUMENT"
        )
        prompts = infer.InferInputTensor(name="prompt", datatype="BYTES", shape=[64])
        prompts.contents.bytes_contents.extend([b"Tell me all about Docker, layer by layer."] * 64)
        assert status("ModelInfer", infer(model_name="tutor", inputs=[prompts]), timeout=0.02) == "DEADLINE_EXCEEDED"
        wait_for(lambda: "} 0.0" in running_line(oip), 10)  # who gave up has left the batch


def running_line(server: Server) -> str:
    text = server.client.get("/metrics").text
    return next(
        line for line in text.splitlines() if line.startswith('inference_running_requests{model="tutor",version="2"')
    )


def test_draining_over_grpc() -> None:
    """A running answer is finished, a new one refused, and the process ends with 0.

    Half a request holds up the end while the others ask, however fast the answer is.
    """
    with (
        Server(GRPC_PORT=free_port(), SLOTS=1, DRAIN_SECONDS=60) as running,
        closing(half_sent(running, b"{" + b" " * 50)) as half,
    ):
        client = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{running.settings['GRPC_PORT']}")
        prompts = tritonclient.grpc.InferInput("prompt", [40], "BYTES")
        prompts.set_data_from_numpy(np.array([b"What is a Docker image?"] * 40, object))
        found: list[Any] = []
        thread = threading.Thread(target=lambda: found.append(client.infer("tutor", [prompts])))
        thread.start()
        wait_for(lambda: "} 1.0" in running_line(running), 10)
        running.process.terminate()
        wait_for(lambda: running.client.get("/ready").status_code == 503, 20)
        assert client.is_server_live()
        assert not client.is_server_ready()
        with pytest.raises(InferenceServerException, match="The server is stopping"):
            client.infer("tutor", [prompts])
        half.close()
        thread.join(60)
        assert len(found[0].as_numpy("text")) == 40
        assert running.process.wait(60) == 0


def test_a_port_that_is_taken(oip: Server) -> None:
    ended = run("serve", HOST="127.0.0.1", PORT=free_port(), GRPC_PORT=oip.settings["GRPC_PORT"])
    assert ended.returncode == 1
    assert "set GRPC_PORT to a free port" in ended.stderr


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="asks Linux which files a process has mapped")
def test_no_grpc_unless_asked(server: Server) -> None:
    """Off by default, and then not even loaded."""
    maps = Path(f"/proc/{server.process.pid}/maps")
    assert "multidict" not in maps.read_text()


def test_the_descriptor_is_compiled_from_the_text(tmp_path: Path) -> None:
    folder = ROOT / "inference_server" / "contracts"
    out = tmp_path / "open_inference.binpb"
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        "-I",
        ".",
        f"--descriptor_set_out={out}",
        "open_inference.proto",
    ]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    assert out.read_bytes() == (folder / "open_inference.binpb").read_bytes()


def test_names_and_numbers_are_those_of_the_clients() -> None:
    """Every message and field of ours has the name, number and type that the public client's own definition gives it."""
    from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

    theirs_file = FileDescriptorProto()
    service_pb2.DESCRIPTOR.CopyToProto(theirs_file)
    ours_file = FileDescriptorSet.FromString(
        (ROOT / "inference_server" / "contracts" / "open_inference.binpb").read_bytes()
    ).file[0]

    def fields(messages: Any, prefix: str = "") -> dict[str, tuple[int, int, int, str]]:
        found: dict[str, tuple[int, int, int, str]] = {}
        message: DescriptorProto
        for message in messages:
            for field in message.field:
                found[f"{prefix}{message.name}.{field.name}"] = (field.number, field.type, field.label, field.type_name)
            found |= fields(message.nested_type, f"{prefix}{message.name}.")
        return found

    ours, theirs = fields(ours_file.message_type), fields(theirs_file.message_type)
    assert len(ours) > 50
    assert ours == {name: theirs[name] for name in ours}
    methods = {(method.name, method.input_type, method.output_type) for method in ours_file.service[0].method}
    assert methods <= {(method.name, method.input_type, method.output_type) for method in theirs_file.service[0].method}
