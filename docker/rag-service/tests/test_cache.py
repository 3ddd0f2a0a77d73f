"""Answers in a real Redis: found again, never stale, and never missed when Redis is away, slow or full of nonsense."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import VOLUMES, Process, Rag, make_redis
from redis import Redis

QUESTION = "Does a volume outlive the container that used it?"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Process]:
    with make_redis(tmp_path) as running:
        yield running


def use(redis: Process) -> dict[str, object]:
    """The settings for it. It has five seconds: a busy machine may take more than a quarter of one."""
    return {"CACHE_URL": f"redis://127.0.0.1:{redis.port}/0", "CACHE_TIMEOUT_SECONDS": 5}


def looks(rag: Rag) -> dict[str, float]:
    """Look-ups in the cache so far."""
    return {each: rag.metric(f'rag_cache_requests_total{{result="{each}"}}') for each in ("hit", "miss", "error")}


def test_an_answer_is_found_again(chroma: Process, inference: Process, redis: Process) -> None:
    with Rag(chroma, inference, **use(redis), CACHE_SECONDS=60) as rag:
        rag.add("a.md", VOLUMES)
        first, again = rag.ask(QUESTION), rag.ask(QUESTION)
        assert (first["cached"], again["cached"]) == (False, True)
        changing = ("cached", "seconds")
        assert {k: v for k, v in first.items() if k not in changing} == {
            k: v for k, v in again.items() if k not in changing
        }
        assert again["seconds"]["embed"] == again["seconds"]["search"] == again["seconds"]["generate"] == 0
        assert again["seconds"]["total"] > 0
        assert looks(rag) == {"hit": 1, "miss": 1, "error": 0}
        assert rag.metric(f'rag_answers_total{{answered_by="{first["answered_by"]}"}}') == 2
        for other in ({"k": 2}, {"k": 1}):
            assert rag.ask(QUESTION, **other)["cached"] is False
        assert rag.ask(QUESTION, k=3)["cached"] is True  # what TOP_K says
        store = Redis(port=redis.port)
        keys = [key.decode() for key in store.scan_iter()]
        assert len(keys) == 3
        assert not any("volume" in key.lower() for key in keys)
        assert all(0 < store.ttl(key) <= 60 for key in keys)


def test_no_answer_outlives_its_documents(chroma: Process, inference: Process, redis: Process) -> None:
    with (
        Rag(chroma, inference, **use(redis)) as rag,
        Rag(chroma, inference, **use(redis), COLLECTION=rag.settings["COLLECTION"]) as other,
    ):
        rag.add("a.md", "# Volume\n\nA volume is storage that outlives a container.")
        assert "outlives" in rag.ask("What is a volume?")["answer"]
        assert other.ask("What is a volume?")["cached"] is True
        rag.add("a.md", "# Volume\n\nA volume is a book on a shelf in the library.")
        for each in (other, rag):
            assert "book" in each.ask("What is a volume?")["answer"]
        rag.client.delete("/documents/a.md")
        assert rag.client.post("/answer", json={"question": "What is a volume?"}).status_code == 409


def test_settings_that_change_an_answer_have_answers_of_their_own(
    chroma: Process, inference: Process, redis: Process
) -> None:
    with Rag(chroma, inference, **use(redis)) as rag:
        rag.add("a.md", VOLUMES)
        rag.ask(QUESTION)
        name = rag.settings["COLLECTION"]
    for setting in ({"ANSWER_TOKENS": 20}, {"VECTOR_WEIGHT": 0.5}, {"LEAST_SIMILARITY": 1}, {"CHAT_MODEL": "tutor:1"}):
        with Rag(chroma, inference, **use(redis), COLLECTION=name, **setting) as rag:
            assert rag.ask(QUESTION)["cached"] is False, setting


def test_redis_is_away_silent_and_back(chroma: Process, inference: Process, redis: Process) -> None:
    with Rag(chroma, inference, **use(redis)) as rag:
        rag.add("a.md", VOLUMES)
        rag.ask(QUESTION)
        redis.stop()
        assert rag.ask(QUESTION)["grounded"] is True
        assert looks(rag)["error"] == 1
        redis.start()
        assert rag.ask(QUESTION)["cached"] is False
        assert rag.ask(QUESTION)["cached"] is True
        redis.freeze()
        try:
            answer = rag.ask(QUESTION)
            assert answer["cached"] is False
            assert 4 < answer["seconds"]["total"] < 20  # its limit of time, and not as long as Redis is silent
        finally:
            redis.thaw()
        assert looks(rag)["error"] == 2
        assert rag.client.get("/ready").status_code == 200  # it can do without
        warnings = [line for line in rag.lines() if line["message"] == "the cache fails"]
        assert len(warnings) == 2


def test_what_is_no_answer_in_the_cache(chroma: Process, inference: Process, redis: Process) -> None:
    with Rag(chroma, inference, **use(redis)) as rag:
        rag.add("a.md", VOLUMES)
        rag.ask(QUESTION)
        store = Redis(port=redis.port)
        (key,) = store.scan_iter()
        for nonsense in (b"\xff\x00", b"[]", b"{", b"{}", b'{"answered_by": "nobody"}'):
            store.set(key, nonsense)
            answer = rag.ask(QUESTION)
            assert (answer["cached"], answer["grounded"]) == (False, True), nonsense


def test_a_password_from_a_file(chroma: Process, inference: Process, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("open sesame\n")
    with make_redis(tmp_path, "--requirepass", "open sesame") as guarded:
        with Rag(chroma, inference, **use(guarded), CACHE_PASSWORD_FILE=password) as rag:
            rag.add("a.md", VOLUMES)
            assert [rag.ask(QUESTION)["cached"] for _ in range(2)] == [False, True]
        password.write_text("wrong\n")
        for given in ({"CACHE_PASSWORD_FILE": password}, {"CACHE_PASSWORD_FILE": tmp_path / "nothing"}, {}):
            with Rag(chroma, inference, **use(guarded), **given) as rag:
                rag.add("a.md", VOLUMES)
                assert rag.ask(QUESTION)["grounded"] is True
                assert looks(rag) == {"hit": 0, "miss": 0, "error": 1}
                assert "sesame" not in rag.output()
