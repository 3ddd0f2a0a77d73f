"""The course's inference server, for real: its spans arrive, under the parent that its client named."""

from __future__ import annotations

from pathlib import Path

from conftest import ROOT, Process, Receiver, free_port, new_trace

SERVER = ROOT.parent / "inference-server"


class Inference(Process):
    """An inference server that sends its spans to a receiver."""

    def __init__(self, receiver: Receiver, root: Path = SERVER) -> None:
        port = free_port()
        to = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "HOST": "127.0.0.1", "PORT": port}
        super().__init__("inference_server", root, f"http://127.0.0.1:{port}", "/ready", **to)


def test_spans_of_the_inference_server(receiver: Receiver) -> None:
    trace, parent = new_trace(), "ab" * 8
    with Inference(receiver) as server:
        chat = {"model": "tutor", "messages": [{"role": "user", "content": "What is Docker?"}], "max_tokens": 4}
        reply = server.client.post(
            "/v1/chat/completions", json=chat, headers={"traceparent": f"00-{trace}-{parent}-01"}
        )
        assert reply.status_code == 200
        seen = receiver.trace(trace)
        wrong = server.client.post("/v1/chat/completions", json={**chat, "model": "nobody"})
        refused = receiver.trace(wrong.headers["traceparent"].split("-")[1])
    (one,) = seen["spans"]
    assert (one["service"], one["kind"], one["parent"]) == ("inference-server", "server", parent)
    assert one["name"] == "POST /v1/chat/completions"
    assert one["attributes"]["http.response.status_code"] == 200
    assert one["attributes"]["gen_ai.request.model"] == "tutor"
    assert one["duration_ms"] > 0
    assert refused["spans"][0]["attributes"]["http.response.status_code"] == 404
