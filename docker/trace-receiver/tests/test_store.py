"""What is kept, in which order, and that it stays within its bounds."""

from __future__ import annotations

import secrets
from typing import Any

from trace_receiver.spans import MOST_ATTRIBUTES, MOST_TEXT, Kind, Span, Status, attributes, cut
from trace_receiver.store import SHARE_OF_ONE, Store


def made(trace: str, id: str, parent: str = "", start: int = 0, end: int = 10, **more: object) -> Span:
    values = {"service": "s", "name": id, "kind": Kind.SERVER, "status": Status.UNSET, "message": "", "attributes": {}}
    return Span(trace_id=trace, span_id=id, parent=parent, start=start, end=end, **{**values, **more})  # type: ignore[arg-type]


def holds(store: Store) -> None:
    """Its books are right."""
    traces = list(store.newest())
    assert store.spans == sum(len(trace.spans) for trace in traces)
    assert store.size == sum(trace.size for trace in traces)
    assert all(trace.size == sum(span.size for span in trace.spans.values()) for trace in traces)


def test_the_oldest_trace_makes_room() -> None:
    store = Store(3, 10, 10**6)
    for trace in "abcd":
        store.add(made(trace, "1"))
    store.add(made("b", "2"))
    assert [trace.id for trace in store.newest()] == ["d", "c", "b"]
    assert store.get("a") is None
    assert store.dropped == {"evicted": 1}
    holds(store)


def test_a_trace_has_a_bounded_number_of_spans() -> None:
    store = Store(3, 2, 10**6)
    for id in ("1", "2", "3", "2"):
        store.add(made("a", id, name=f"{id} again" if id == "2" else id))
    (trace,) = store.newest()
    assert list(trace.spans) == ["1", "2"]
    assert store.dropped == {"too_many_spans": 1}
    holds(store)


def test_memory_is_bounded_whatever_comes() -> None:
    most = 2**20
    store = Store(10**6, 10**6, most)
    text = "ü" * MOST_TEXT
    for number in range(2000):
        trace = f"{number % 300:032x}" if number % 3 else "f" * 32
        store.add(made(trace, secrets.token_hex(8), attributes={"a": text, "b": text}))
        assert store.size <= most
    giant = store.get("f" * 32)
    assert giant is None or giant.size <= most // SHARE_OF_ONE
    assert store.dropped["evicted"] > 0
    assert store.dropped["trace_too_large"] > 0
    holds(store)


def test_attributes_and_texts_are_cut() -> None:
    pairs = [(f"{number} {'k' * 500}", "v" * 5000) for number in range(500)]
    kept = attributes([*pairs[:2], ("x", float("nan")), ("y", float("-inf")), *pairs])
    assert len(kept) == MOST_ATTRIBUTES
    assert max(len(key) for key in kept) <= 128
    assert max(len(str(value)) for value in kept.values()) <= MOST_TEXT
    assert (kept["x"], kept["y"]) == ("nan", "-inf")
    assert cut("a\ud800b") == "a?b"


def test_times_that_cannot_be_are_shown_all_the_same() -> None:
    store = Store(3, 10, 10**6)
    store.add(made("a", "1", start=100, end=50))
    store.add(made("a", "2", "1", start=90, end=95))
    trace = store.get("a")
    assert trace
    assert [span.duration for span in trace.by_start()] == [5, 0]
    assert (trace.start, trace.duration, trace.root.span_id) == (90, 10, "1")


def test_the_tree_has_every_span_once_also_rings_and_orphans() -> None:
    store = Store(3, 100, 10**6)
    for id, parent, start in (("c", "b", 3), ("b", "a", 2), ("a", "", 1), ("d", "a", 0), ("o", "never", 5)):
        store.add(made("t", id, parent, start))
    for id, parent in (("r1", "r2"), ("r2", "r1"), ("self", "self")):
        store.add(made("t", id, parent, 9))
    trace = store.get("t")
    assert trace
    lines = [(depth, span.span_id) for depth, span in trace.tree()]
    assert lines[:5] == [(0, "a"), (1, "d"), (1, "b"), (2, "c"), (0, "o")]
    assert sorted(id for _, id in lines[5:]) == ["r1", "r2", "self"]
    assert trace.root.span_id == "a"


def test_a_service_that_sends_nothing_is_seen_through_its_client() -> None:
    store = Store(3, 100, 10**6)
    asks: dict[str, Any] = {"service": "rag", "kind": Kind.CLIENT}
    store.add(made("t", "1", service="rag"))
    store.add(made("t", "2", "1", 1, attributes={"peer.service": "chroma"}, **asks))
    store.add(made("t", "3", "1", 2, attributes={"peer.service": "model"}, **asks))
    store.add(made("t", "4", "3", 3, service="inference-server", attributes={"peer.service": "nobody"}))
    trace = store.get("t")
    assert trace and trace.services == ["rag", "chroma", "inference-server"]


def test_a_very_deep_trace_is_no_recursion() -> None:
    store = Store(3, 10**5, 10**9)
    for number in range(20_000):
        store.add(made("t", str(number), str(number - 1) if number else "", number))
    trace = store.get("t")
    assert trace and trace.tree()[-1][0] == 19_999
