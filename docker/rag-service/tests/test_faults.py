"""Under fault: dependencies that are away, frozen or back, writes that were cut off, replicas that write behind one's back."""

import socketserver
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from io import BufferedIOBase
from pathlib import Path
from threading import Thread

import httpx
import pytest
from conftest import VOLUMES, Process, Rag, error, make_chroma, make_inference, wait_for

QUESTION = {"question": "Does a volume outlive the container that used it?"}


@pytest.fixture
def own_chroma(tmp_path: Path) -> Iterator[Process]:
    with make_chroma(tmp_path) as running:
        yield running


@pytest.fixture
def own_inference() -> Iterator[Process]:
    with make_inference() as running:
        yield running


def test_chroma_is_away_and_comes_back(own_chroma: Process, inference: Process) -> None:
    with Rag(own_chroma, inference) as rag:
        rag.add("a.md", VOLUMES)
        own_chroma.stop()
        for method, path, body in (
            ("POST", "/answer", QUESTION),
            ("POST", "/search", QUESTION),
            ("POST", "/documents", {"source": "b.md", "text": "text"}),
            ("GET", "/documents", None),
            ("DELETE", "/documents/a.md", None),
        ):
            reply = rag.client.request(method, path, json=body)
            assert "chroma" in error(reply, 503, "chroma_down")["message"]
            assert int(reply.headers["Retry-After"]) >= 1
        ready = rag.client.get("/ready")
        assert (ready.status_code, ready.json()["problems"].keys()) == (503, {"chroma"})
        assert rag.client.get("/health").status_code == 200
        assert rag.metric('rag_dependency_up{dependency="chroma"}') == 0
        assert rag.metric('rag_dependency_up{dependency="inference"}') == 1
        own_chroma.start()
        assert rag.client.post("/answer", json=QUESTION).status_code == 200  # at once, on a connection of before
        assert rag.sources() == {"a.md": 3}
        assert rag.metric('rag_dependency_up{dependency="chroma"}') == 1


def test_inference_is_away_and_comes_back(chroma: Process, own_inference: Process) -> None:
    with Rag(chroma, own_inference) as rag:
        rag.add("a.md", VOLUMES)
        own_inference.stop()
        for path, body in (
            ("/answer", QUESTION),
            ("/search", QUESTION),
            ("/documents", {"source": "a.md", "text": "new"}),
        ):
            assert "inference" in error(rag.client.post(path, json=body), 503, "inference_down")["message"]
        assert rag.client.get("/ready").json()["problems"].keys() == {"inference"}
        assert rag.metric('rag_dependency_up{dependency="inference"}') == 0
        assert rag.sources() == {"a.md": 3}  # the replace that failed lost nothing
        own_inference.start()
        assert rag.ask(QUESTION["question"])["grounded"]


def test_a_dependency_that_is_silent_costs_its_limit_of_time(own_chroma: Process, own_inference: Process) -> None:
    with Rag(own_chroma, own_inference) as patient:  # a document may take longer on a busy machine
        patient.add("a.md", VOLUMES)
        collection = patient.settings["COLLECTION"]
    with Rag(own_chroma, own_inference, COLLECTION=collection, TIMEOUT_SECONDS=5) as rag:
        for silent, code in ((own_chroma, "chroma_down"), (own_inference, "inference_down")):
            silent.freeze()
            try:
                start = time.monotonic()
                assert "took too long" in error(rag.client.post("/answer", json=QUESTION), 503, code)["message"]
                assert time.monotonic() - start < 40  # not for ever
                assert rag.client.get("/ready").status_code == 503
                assert rag.client.get("/health").status_code == 200
            finally:
                silent.thaw()
        wait_for(lambda: rag.client.post("/answer", json=QUESTION).status_code == 200)


@contextmanager
def http_server(answer: Callable[[BufferedIOBase, BufferedIOBase], None]) -> Iterator[str]:
    """A server that does with each connection what ``answer`` does; its address."""

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with suppress(OSError):
                answer(self.rfile, self.wfile)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
        server.shutdown()


def read_request(given: BufferedIOBase) -> bytes:
    """Read one request; its first line, empty where none came."""
    size, line = 0, given.readline()
    first = line
    while line.strip():
        if line.lower().startswith(b"content-length:"):
            size = int(line.split(b":")[1])
        line = given.readline()
    given.read(size)
    return first


def test_an_answer_that_drips_costs_its_limit_of_time(chroma: Process) -> None:
    """Each byte comes in time, and the whole never does."""

    def drip(given: BufferedIOBase, back: BufferedIOBase) -> None:
        read_request(given)
        back.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(1000):
            back.write(b" ")
            time.sleep(0.05)

    with http_server(drip) as url, Rag(chroma, chroma, INFERENCE_URL=url, TIMEOUT_SECONDS=1) as rag:
        start = time.monotonic()
        error(rag.client.post("/documents", json={"source": "a", "text": "b"}), 503, "inference_down")
        assert time.monotonic() - start < 10  # the whole takes 50 s


def test_a_connection_that_breaks_is_made_again(chroma: Process) -> None:
    """As when a server closes an idle connection in the moment in which it is used."""
    body = b'{"data": [{"index": 0, "embedding": [1, 0, 0]}]}'

    def once(given: BufferedIOBase, back: BufferedIOBase) -> None:
        watched = read_request(given).startswith(b"GET")  # by the watch, on a connection of its own
        kept = b"close" if watched else b"keep-alive"
        back.write(b"HTTP/1.1 200 OK\r\nConnection: %s\r\nContent-Length: %d\r\n\r\n%s" % (kept, len(body), body))
        if not watched:
            read_request(given)  # and no word to the second

    with http_server(once) as url, Rag(chroma, chroma, INFERENCE_URL=url) as rag:
        for number in range(5):
            rag.add(f"{number}.md", "text")


def test_a_body_that_does_not_come(chroma: Process, inference: Process) -> None:
    import socket

    with (
        Rag(chroma, inference, TIMEOUT_SECONDS=0.5) as rag,
        socket.create_connection(("127.0.0.1", rag.port), 20) as slow,
    ):
        slow.sendall(
            b"POST /answer HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        )
        assert b" 408 " in slow.recv(4096).split(b"\r\n")[0]


def test_it_starts_before_what_it_needs(tmp_path: Path, inference: Process) -> None:
    """Everything of a stack starts at once: the service waits by saying that it is not ready."""
    with make_chroma(tmp_path) as late:
        late.stop()
        with Rag(late, inference) as rag:
            assert rag.client.get("/ready").status_code == 503
            late.start()
            assert rag.client.get("/ready").status_code == 200
            assert rag.add("a.md", VOLUMES) == 3


def rows_of(chroma: Process, rag: Rag) -> tuple[str, httpx.Client]:
    """The address of the collection in Chroma itself."""
    root = "/api/v2/tenants/default_tenant/databases/default_database/collections"
    found = chroma.client.get(f"{root}/{rag.settings['COLLECTION']}").json()
    return f"{root}/{found['id']}", chroma.client


def test_a_replace_that_was_cut_off_changes_nothing(chroma: Process, fresh: Rag) -> None:
    """As when the service dies between two writes: a part of the new passages stands beside the former ones."""
    fresh.add("a.md", VOLUMES)
    before = fresh.ask(QUESTION["question"])["sources"]
    address, client = rows_of(chroma, fresh)
    row = client.post(f"{address}/get", json={"include": ["embeddings", "metadatas"], "limit": 1}).json()
    torn = {**row["metadatas"][0], "written": row["metadatas"][0]["written"] + 1, "of": 2}
    body = {"ids": ["torn"], "embeddings": row["embeddings"], "documents": ["A torn volume."], "metadatas": [torn]}
    assert client.post(f"{address}/upsert", json=body).status_code == 200
    chunks = fresh.metric("rag_chunks")
    with Rag(
        chroma, chroma, INFERENCE_URL=fresh.settings["INFERENCE_URL"], COLLECTION=fresh.settings["COLLECTION"]
    ) as new:
        for rag in (fresh, new):
            assert rag.ask(QUESTION["question"])["sources"] == before
            assert rag.sources() == {"a.md": 3}
    assert (chunks, client.get(f"{address}/count").json()) == (3, 4)
    fresh.add("a.md", VOLUMES)  # the next replace takes the leftovers away
    assert client.get(f"{address}/count").json() == 3


def test_a_replica_sees_what_another_wrote(chroma: Process, inference: Process, fresh: Rag) -> None:
    with Rag(chroma, inference, COLLECTION=fresh.settings["COLLECTION"]) as other:
        fresh.add("a.md", VOLUMES)
        assert other.sources() == {"a.md": 3}
        assert other.ask(QUESTION["question"])["grounded"]
        fresh.add("a.md", "The word is zanzibar.")
        assert (
            other.client.post("/search", json={"question": "zanzibar"}).json()["passages"][0]["text"]
            == "The word is zanzibar."
        )
        fresh.add("b.md", VOLUMES)
        wait_for(lambda: other.metric("rag_chunks") == 4)  # without a request
        assert other.metric("rag_documents") == 2
        other.client.delete("/documents/b.md")
        wait_for(lambda: fresh.metric("rag_chunks") == 1)


def test_writers_at_once_leave_one_whole_document(chroma: Process, inference: Process, fresh: Rag) -> None:
    texts = [
        "\n\n".join(f"## Part {part}\n\nText {writer} of part {part}." for part in range(40)) for writer in range(6)
    ]
    with Rag(chroma, inference, COLLECTION=fresh.settings["COLLECTION"]) as other, ThreadPoolExecutor(6) as pool:
        fresh.add("a.md", "The first one.")
        list(pool.map(lambda at: (fresh, other)[at % 2].add("a.md", texts[at]), range(6)))
        for rag in (fresh, other):
            assert rag.sources() == {"a.md": 40}
            passages = rag.client.post("/search", json={"question": "text of part", "k": 20}).json()["passages"]
            assert len({passage["text"].split()[1] for passage in passages}) == 1
    address, client = rows_of(chroma, fresh)
    assert client.get(f"{address}/count").json() == 40


def test_the_collection_is_dropped_behind_its_back(chroma: Process, fresh: Rag) -> None:
    fresh.add("a.md", VOLUMES)
    root = "/api/v2/tenants/default_tenant/databases/default_database/collections"
    assert chroma.client.delete(f"{root}/{fresh.settings['COLLECTION']}").status_code == 200
    error(fresh.client.post("/answer", json=QUESTION), 409, "nothing_ingested")
    wait_for(lambda: fresh.metric("rag_chunks") == 0)
    fresh.add("a.md", VOLUMES)
    assert fresh.ask(QUESTION["question"])["grounded"]


def test_vectors_of_another_embedder_are_refused(chroma: Process, inference: Process, fresh: Rag) -> None:
    fresh.add("a.md", VOLUMES)
    with Rag(chroma, inference, COLLECTION=fresh.settings["COLLECTION"], EMBEDDINGS_MODEL="embedder:1") as other:
        refused = error(other.client.post("/documents", json={"source": "b", "text": "c"}), 409, "other_embedder")
        assert "COLLECTION" in refused["message"]
    with Rag(chroma, inference, EMBEDDINGS_MODEL="nobody") as other:
        refused = error(other.client.post("/documents", json={"source": "b", "text": "c"}), 502, "inference_refuses")
        assert "EMBEDDINGS_MODEL" in refused["message"]


def test_settings_of_the_index_reach_chroma(chroma: Process, inference: Process) -> None:
    with Rag(
        chroma, inference, HNSW_SPACE="l2", HNSW_EF_CONSTRUCTION=33, HNSW_EF_SEARCH=44, HNSW_MAX_NEIGHBORS=8
    ) as rag:
        rag.add("a.md", VOLUMES)
        address, client = rows_of(chroma, rag)
        found = client.get(address.rsplit("/", 1)[0] + f"/{rag.settings['COLLECTION']}").json()["configuration_json"][
            "hnsw"
        ]
        assert (found["space"], found["ef_construction"], found["ef_search"], found["max_neighbors"]) == (
            "l2",
            33,
            44,
            8,
        )
        assert rag.ask(QUESTION["question"])["grounded"]  # the cosine is right in every space
        assert rag.ask("Why do cats purr?")["answered_by"] == "none"
