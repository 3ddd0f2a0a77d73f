"""Answers: what a model says counts only where the best passage has it; generative mode is the model's own word with its passages."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from conftest import VOLUMES, Process, Rag, error
from rag_service.answering import sentences, stands_in

PASSAGE = "A volume is storage that Docker manages.  Its data\noutlives the container."
QUESTION = "Does a volume outlive the container that used it?"


@pytest.mark.parametrize(
    ("answer", "stands"),
    [
        ("A volume is storage that Docker manages.", True),
        ("a VOLUME is storage   that docker manages", True),
        ("Its data outlives the container.", True),
        ("A volume is storage that Podman manages.", False),
        ("Its data vanishes with the container.", False),
        ("volume is storage", False),  # too short to be an answer
        ("the container", False),
        (".", False),
        ("", False),
    ],
)
def test_what_stands_in_a_passage(answer: str, stands: bool) -> None:
    assert stands_in(answer, PASSAGE) is stands


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("One. Two is `x.y`! Three", ["One.", "Two is `x.y`!", "Three"]),
        ("- first item\n- second. More.\n\nNext", ["- first item", "- second.", "More.", "Next"]),
        ("| a | b |\n| c | d |", ["| a | b |", "| c | d |"]),
        ('He said "yes." Then (no.) End', ['He said "yes."', "Then (no.)", "End"]),
        ("word", ["word"]),
    ],
)
def test_sentences(text: str, parts: list[str]) -> None:
    assert [text[start:end] for start, end in sentences(text)] == parts


def test_a_long_passage_is_quoted_around_its_nearest_sentence(chroma: Process, inference: Process) -> None:
    filler = [f"Line {number} of this page says something about cooking rice and beans." for number in range(20)]
    filler[11] = "A bind mount shows a folder of the host inside a container."
    text = " ".join(filler)
    with Rag(chroma, inference, CHUNK_CHARACTERS=5000, LEAST_SIMILARITY=-1) as rag:
        rag.add("long.md", text)
        answer = rag.ask("What is a bind mount of a host folder?")
    assert answer["answered_by"] == "quote"
    assert filler[11] in answer["answer"]
    assert answer["answer"] in text
    assert len(answer["answer"]) <= 300


class Model:
    """A server that speaks OpenAI's chat protocol: what it says is set by a test, what it was asked is kept."""

    def __init__(self) -> None:
        self.status, self.says = 200, ""
        self.asked: list[dict[str, Any]] = []
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._reply(200, {"object": "list", "data": []})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                model.asked.append(body | {"headers": dict(self.headers)})
                if model.status != 200:
                    self._reply(model.status, {"error": {"message": "too long", "code": "context_length_exceeded"}})
                else:
                    self._reply(200, {"choices": [{"message": {"role": "assistant", "content": model.says}}]})

            def _reply(self, status: int, body: object) -> None:
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def model() -> Iterator[Model]:
    serving = Model()
    yield serving
    serving.close()


def with_model(chroma: Process, inference: Process, model: Model, **settings: object) -> Rag:
    """A service whose answers come from ``model`` and whose vectors from the inference server."""
    rag = Rag(chroma, inference, INFERENCE_URL=model.url, EMBEDDINGS_URL=f"{inference.url}/v1", **settings)
    rag.add("docs/volumes.md", VOLUMES)
    return rag


def test_extractive_takes_what_stands_in_the_best_passage(chroma: Process, inference: Process, model: Model) -> None:
    with with_model(chroma, inference, model) as rag:
        model.says = "storage that docker manages outside the container's layers"
        answer = rag.ask(QUESTION)
        assert (answer["answered_by"], answer["answer"], answer["grounded"]) == ("model", model.says, True)
        system, user = model.asked[-1]["messages"]
        assert (system["role"], user) == ("system", {"role": "user", "content": QUESTION})
        texts = [source["text"] for source in answer["sources"]]
        assert system["content"] == "Answer from this passage:\n" + " ".join(texts)
        assert (model.asked[-1]["model"], model.asked[-1]["temperature"]) == ("tutor", 0)


@pytest.mark.parametrize(
    "says",
    [
        "A volume is a kind of storm in the north sea.",
        "",
        "Docker",
        "A bind mount shows a folder of the host inside a container.",
    ],
)
def test_extractive_quotes_where_the_model_makes_things_up(
    chroma: Process, inference: Process, model: Model, says: str
) -> None:
    with with_model(chroma, inference, model) as rag:
        model.says = says
        answer = rag.ask(QUESTION)
    assert answer["answered_by"] == "quote"
    assert answer["answer"] == answer["sources"][0]["text"]
    assert answer["answer"].startswith("A volume is storage")


def test_a_prompt_that_the_model_refuses(chroma: Process, inference: Process, model: Model) -> None:
    model.status = 400
    with with_model(chroma, inference, model) as rag:
        assert rag.ask(QUESTION)["answered_by"] == "quote"
    with with_model(chroma, inference, model, ANSWER_MODE="generative") as rag:
        refused = error(rag.client.post("/answer", json={"question": QUESTION}), 502, "inference_refuses")
        assert "too long" in refused["message"]
        assert "PROMPT_CHARACTERS" in refused["message"]


def test_generative_gives_the_models_word_and_the_passages_it_cites(
    chroma: Process, inference: Process, model: Model
) -> None:
    with with_model(chroma, inference, model, ANSWER_MODE="generative", PROMPT_CHARACTERS=10_000) as rag:
        model.says = "Yes, it does [2]. Be careful with prune [2][7]."
        answer = rag.ask(QUESTION)
        assert (answer["answer"], answer["answered_by"], answer["grounded"]) == (model.says, "model", True)
        given = model.asked[-1]["messages"][0]["content"]
        numbered = dict(re.findall(r"^\[(\d)\] (.+)$", given, re.MULTILINE))
        assert list(numbered) == ["1", "2", "3"]
        assert answer["sources"][0]["text"] == numbered["2"]  # the one it cites first
        assert {source["text"] for source in answer["sources"]} == set(numbered.values())
        model.says = "I made this up."
        assert rag.ask(QUESTION)["grounded"] is False
        model.says = ""
        error(rag.client.post("/answer", json={"question": QUESTION}), 502, "empty_answer")


def test_passages_that_do_not_fit_are_left_out(chroma: Process, inference: Process, model: Model) -> None:
    with with_model(chroma, inference, model, ANSWER_MODE="generative", PROMPT_CHARACTERS=120) as rag:
        model.says = "Yes [1]."
        answer = rag.ask(QUESTION)
        assert model.asked[-1]["messages"][0]["content"].endswith(f"[1] {answer['sources'][0]['text']}")


def test_the_key_is_sent_and_read_again(chroma: Process, model: Model, inference: Process, tmp_path: Any) -> None:
    key = tmp_path / "key"
    key.write_text("first-key\n")
    with with_model(chroma, inference, model, INFERENCE_KEY_FILE=key) as rag:
        rag.ask(QUESTION)
        assert model.asked[-1]["headers"]["Authorization"] == "Bearer first-key"
        key.write_text("second-key\n")
        rag.client.post("/answer", json={"question": QUESTION}, headers={"X-Request-ID": "seen-7"})
        assert model.asked[-1]["headers"]["Authorization"] == "Bearer second-key"
        assert model.asked[-1]["headers"]["X-Request-ID"] == "seen-7"
        key.unlink()
        refused = error(rag.client.post("/answer", json={"question": QUESTION}), 500, "bad_key_file")
        assert "INFERENCE_KEY_FILE" in refused["message"]
        assert "-key" not in rag.output()


def test_a_key_that_the_server_refuses(chroma: Process, tmp_path: Any) -> None:
    from conftest import make_inference

    keys = tmp_path / "keys"
    keys.write_text("rag:right-key\n")
    given = tmp_path / "given"
    given.write_text("wrong-key\n")
    with make_inference(API_KEYS_FILE=keys) as guarded, Rag(chroma, guarded, INFERENCE_KEY_FILE=given) as rag:
        refused = error(rag.client.post("/documents", json={"source": "a", "text": "b"}), 502, "inference_refuses")
        assert "INFERENCE_KEY_FILE" in refused["message"]
        assert rag.client.get("/ready").json()["problems"].keys() == {"inference"}
        given.write_text("right-key\n")
        assert rag.add("a.md", VOLUMES) == 3
        assert rag.client.get("/ready").status_code == 200
