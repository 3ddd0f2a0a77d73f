"""The routes: documents in, out and replaced; passages that stand in their documents; answers; errors that say what to do."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from conftest import VOLUMES, Process, Rag, environment, error, from_package

QUESTION = "Does a volume outlive the container that used it?"
TOPICS = ["volume", "bind mount", "prune"]


def test_a_document_is_listed_searched_and_removed(fresh: Rag) -> None:
    assert fresh.client.get("/documents").json() == []
    assert fresh.add("a.md", VOLUMES) == 3
    assert fresh.add("folder/b.md", "Kubernetes runs pods on nodes.") == 1
    assert fresh.sources() == {"a.md": 3, "folder/b.md": 1}
    removed = fresh.client.delete("/documents/folder/b.md")
    assert (removed.status_code, removed.json()) == (200, {"source": "folder/b.md", "chunks": 1})
    assert fresh.sources() == {"a.md": 3}
    gone = error(fresh.client.delete("/documents/folder/b.md"), 404, "no_such_document")
    assert gone["message"] == "There is no document 'folder/b.md': GET /documents lists them."


def test_the_same_source_again_replaces_its_passages(fresh: Rag) -> None:
    fresh.add("a.md", VOLUMES)
    fresh.add("other.md", "A pod is the smallest thing that Kubernetes runs.")
    assert fresh.add("a.md", "Volumes were replaced by the word zanzibar.") == 1
    assert fresh.sources() == {"a.md": 1, "other.md": 1}
    passages = fresh.client.post("/search", json={"question": "volume zanzibar prune", "k": 20}).json()["passages"]
    assert sorted(passage["text"] for passage in passages) == [
        "A pod is the smallest thing that Kubernetes runs.",
        "Volumes were replaced by the word zanzibar.",
    ]
    assert fresh.add("a.md", VOLUMES) == fresh.add("a.md", VOLUMES) == 3
    assert fresh.sources() == {"a.md": 3, "other.md": 1}


@pytest.mark.parametrize("k", [None, 1, 3])
def test_passages_are_pieces_of_their_documents(rag: Rag, k: int | None) -> None:
    passages = rag.client.post("/search", json={"question": QUESTION, "k": k}).json()["passages"]
    assert len(passages) == (k or 3)
    assert [passage["score"] for passage in passages] == sorted((p["score"] for p in passages), reverse=True)
    first = passages[0]
    assert first.keys() == {"source", "heading", "text", "score", "start", "end"}
    assert (first["source"], first["heading"]) == ("docs/volumes.md", "Volumes > Volume")
    assert 0 < first["score"] <= 1
    for passage in passages:
        assert VOLUMES[passage["start"] : passage["end"]] == passage["text"]


def test_an_answer_stands_in_its_first_source(rag: Rag) -> None:
    answer = rag.ask(QUESTION)
    assert answer.keys() == {"answer", "answered_by", "grounded", "sources", "cached", "seconds", "model"}
    assert answer["answered_by"] in ("model", "quote")
    assert answer["grounded"] is True
    assert answer["cached"] is False
    assert answer["model"] == "tutor"
    assert (
        answer["answer"]
        == "A volume is storage that Docker manages outside the container's layers, so its data outlives the container."
    )
    assert answer["answer"] in answer["sources"][0]["text"]
    seconds = answer["seconds"]
    assert seconds.keys() == {"embed", "search", "generate", "total"}
    assert all(value > 0 for value in seconds.values())
    assert seconds["total"] >= seconds["embed"] + seconds["search"] + seconds["generate"]


def test_a_question_about_something_else_has_no_answer(rag: Rag) -> None:
    answer = rag.ask("Why do cats purr?")
    assert (answer["answered_by"], answer["grounded"], answer["sources"]) == ("none", False, [])
    assert answer["answer"] == "The documents say nothing about this."
    assert answer["seconds"]["generate"] < answer["seconds"]["total"]


def test_nothing_ingested(fresh: Rag) -> None:
    for route in ("/search", "/answer"):
        refused = error(fresh.client.post(route, json={"question": QUESTION}), 409, "nothing_ingested")
        assert "POST /documents" in refused["message"]
    fresh.add("a.md", VOLUMES)
    assert fresh.ask(QUESTION)["grounded"]
    fresh.client.delete("/documents/a.md")
    error(fresh.client.post("/answer", json={"question": QUESTION}), 409, "nothing_ingested")


BAD_DOCUMENTS: list[tuple[object, str]] = [
    ({"source": "a.md"}, "text: Field required"),
    ({"text": "x"}, "source: Field required"),
    ({"source": "a.md", "text": " \n\t"}, "text: it is empty"),
    ({"source": "a.md", "text": ""}, "text: it is empty"),
    ({"source": "", "text": "x"}, "source: String should have at least 1 character"),
    ({"source": "/a.md", "text": "x"}, "source: write it as a path without a slash in front"),
    ({"source": "a\n.md", "text": "x"}, "source: write it as a path"),
    ({"source": "a" * 501, "text": "x"}, "source: String should have at most 500 characters"),
    ({"source": "a.md", "text": "\x00\x01ELF"}, "text: it holds binary data"),
    ({"source": "a.md", "text": "\x01\x02\x03 abc"}, "text: it holds binary data"),
    ({"source": "a.md", "text": "\ud800"}, "text: "),
    ({"source": "a.md", "text": 7}, "text: Input should be a valid string"),
    ({"source": "a.md", "text": "x", "txt": "y"}, "txt: Extra inputs are not permitted"),
    ({"source": "a.md", "text": "# Only\n\n## Headings\n"}, "text: there is nothing in it but headings"),
    (["a"], "The body: "),
]


@pytest.mark.parametrize(("body", "said"), BAD_DOCUMENTS)
def test_bad_documents_are_refused(rag: Rag, body: object, said: str) -> None:
    before = rag.sources()
    reply = rag.client.post("/documents", content=json.dumps(body), headers={"Content-Type": "application/json"})
    refused = error(reply, 422, "empty_text" if "headings" in said else "bad_request")
    assert refused["message"].startswith(said)
    assert rag.sources() == before


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "question: Field required"),
        ({"question": "  "}, "question: it is empty"),
        ({"question": "x" * 2001}, "question: String should have at most 2000 characters"),
        ({"question": "x", "k": 0}, "k: Input should be greater than or equal to 1"),
        ({"question": "x", "k": 21}, "k: Input should be less than or equal to 20"),
        ({"question": "x", "k": "3"}, "k: Input should be a valid integer"),
        ({"question": "x", "top_k": 3}, "top_k: Extra inputs are not permitted"),
    ],
)
def test_bad_questions_are_refused(rag: Rag, body: object, said: str) -> None:
    for route in ("/search", "/answer"):
        assert error(rag.client.post(route, json=body), 422, "bad_request")["message"].startswith(said)


def test_bodies_that_are_no_json(rag: Rag) -> None:
    as_json = {"Content-Type": "application/json"}
    error(rag.client.post("/answer", content=b"{", headers=as_json), 422, "bad_json")
    error(rag.client.post("/answer", content=b'{"question": "\xff\xff"}', headers=as_json), 400, "bad_json")
    error(
        rag.client.post("/documents", content=bytes(range(256)), headers={"Content-Type": "application/pdf"}),
        415,
        "not_json",
    )
    error(rag.client.get("/nothing"), 404, "not_found")
    error(rag.client.put("/answer"), 405, "method_not_allowed")


def test_a_body_that_is_too_large(chroma: Process, inference: Process) -> None:
    with Rag(chroma, inference, MAX_BODY_BYTES=2000) as rag:
        too_large = {"source": "a.md", "text": "x" * 2000}
        assert "2,000 bytes" in error(rag.client.post("/documents", json=too_large), 413, "body_too_large")["message"]

        def endless() -> object:
            for _ in range(3):
                yield b"x" * 1000

        error(rag.client.post("/documents", content=endless()), 413, "body_too_large")  # type: ignore[arg-type]
        assert rag.add("a.md", "x" * 100) == 1


def test_words_that_mean_something_to_the_index(rag: Rag) -> None:
    """FTS5 and JSON have a syntax of their own: a question is words to them, whatever is in it."""
    for question in ['"', "NOT volume AND (", "volume*", 'a"b OR NEAR(', "'; DROP TABLE passages; --", "¿?", "_", "🐳"]:
        assert rag.client.post("/answer", json={"question": question}).status_code == 200, question


def test_passages_of_a_large_document_come_in_pages(chroma: Process, inference: Process) -> None:
    """More rows than one request of Chroma's has here; each found by its own word."""
    with Rag(chroma, inference, VECTOR_WEIGHT=0) as rag:
        _large(rag)


def _large(fresh: Rag) -> None:
    text = "\n\n".join(
        f"## Entry {number}\n\nThe word of this entry is w{number}x and nothing else." for number in range(1203)
    )
    assert fresh.add("large.md", text) == 1203
    assert fresh.sources() == {"large.md": 1203}
    for number in (0, 777, 1202):
        found = fresh.client.post("/search", json={"question": f"w{number}x", "k": 1}).json()["passages"][0]
        assert found["heading"] == f"Entry {number}"


def test_health_ready_and_the_probe(rag: Rag) -> None:
    assert rag.client.get("/health").json()["status"] == "ok"
    ready = rag.client.get("/ready")
    assert (ready.status_code, ready.json()) == (200, {"ready": True, "problems": {}})
    for option in ([], ["--ready"]):
        command = [sys.executable, "-m", "rag_service.health", *option]
        probed = subprocess.run(command, env=environment(PORT=rag.port), capture_output=True, text=True, timeout=30)
        assert (probed.returncode, probed.stdout.split(":")[0]) == (0, "healthy")
    probed = subprocess.run(command, env=environment(PORT=1), capture_output=True, text=True, timeout=30)
    assert (probed.returncode, probed.stdout.split(":")[0]) == (1, "unhealthy")


def test_metrics(fresh: Rag) -> None:
    assert fresh.metric('rag_answers_total{answered_by="model"}') == 0
    fresh.add("a.md", VOLUMES)
    who = fresh.ask(QUESTION)["answered_by"]
    fresh.client.post("/answer", json={})
    assert fresh.metric(f'rag_answers_total{{answered_by="{who}"}}') == 1
    for stage in ("embed", "search", "generate"):
        assert fresh.metric(f'rag_stage_duration_seconds_count{{stage="{stage}"}}') == 1
    assert fresh.metric('http_requests_total{method="POST",route="/answer",status="200"}') == 1
    assert fresh.metric('http_request_duration_seconds_count{route="/answer",status="422"}') == 1
    assert (fresh.metric("rag_documents"), fresh.metric("rag_chunks")) == (1, 3)
    assert fresh.metric('rag_dependency_up{dependency="chroma"}') == 1
    assert fresh.metric('rag_dependency_up{dependency="inference"}') == 1
    assert fresh.metric('rag_cache_requests_total{result="miss"}') == 0
    assert fresh.metric("process_resident_memory_bytes") > 1e6
    fresh.client.get("/some/path")
    assert "/some/path" not in fresh.client.get("/metrics").text


def test_promtool_finds_nothing_to_say(rag: Rag) -> None:
    promtool = from_package("prometheus", lambda: shutil.which("promtool"))
    text = rag.client.get("/metrics").text
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_logs_are_json_with_ids_and_without_words(rag: Rag) -> None:
    secret = "xylophones of prometheus"
    reply = rag.client.post("/answer", json={"question": secret}, headers={"X-Request-ID": "my-id-7"})
    assert reply.headers["x-request-id"] == "my-id-7"
    rag.client.post("/documents", json={"source": secret, "text": secret, "wrong": secret})
    (line,) = [line for line in rag.lines() if line.get("request_id") == "my-id-7"]
    assert (line["route"], line["status"], line["level"]) == ("/answer", 200, "info")
    assert re.fullmatch(r"[0-9a-f]{32}", line["trace_id"])
    assert line["embed_ms"] > 0
    assert "xylophones" not in rag.output()
    made = rag.client.get("/health", headers={"X-Request-ID": "not good"}).headers
    assert re.fullmatch(r"[0-9a-f]{32}", made["x-request-id"])


def test_sigterm_ends_it_politely(chroma: Process, inference: Process) -> None:
    import signal

    with Rag(chroma, inference) as rag:
        assert rag.stop(signal.SIGTERM) == 0
        assert rag.lines()[-1]["message"] == "stopped"
