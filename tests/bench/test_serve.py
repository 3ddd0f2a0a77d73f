"""`course bench serve`: a short run for real, its client's clock, what it leaves behind, and what it writes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from course_lib import waits
from course_lib.bench import contestants, load, serve, serve_table, workload
from course_lib.bench.goals import goals
from course_lib.errors import CourseError

COURSE = [sys.executable, "-m", "course_lib.cli"]
needs_wrk = pytest.mark.skipif(
    shutil.which("wrk") is None and shutil.which("apt-get") is None,
    reason="the load client wrk is not here, and there is no apt-get to install it",
)


def left_behind(folder: Path) -> list[str]:
    """Processes on a model folder of the bench that was told to work in this one: others may run on this machine."""
    found = []
    for process in psutil.process_iter():
        try:
            environment, command = process.environ(), process.cmdline()
        except psutil.Error:
            continue
        if any(
            environment.get(name, "").startswith(f"{folder}/course-bench-") for name in ("MODEL_PATH", "TEXT_MODEL")
        ):
            found.append(" ".join(command))
    return found


def working_in(folder: Path) -> dict[str, str]:
    """The environment of a bench whose temporary files lie here."""
    return {**os.environ, "TMPDIR": str(folder)}


class Slow(BaseHTTPRequestHandler):
    """Streams an empty event at once, a text after 100 ms, and ends after 600 ms."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/broken":
            self.send_error(503)
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for pause, event in ((0.0, '{"text": ""}'), (0.1, '{"text": "one"}'), (0.5, '{"text": "two"}')):
            time.sleep(pause)
            data = f"data: {event}\n\n".encode()
            self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *arguments: Any) -> None:
        """Quiet."""


@pytest.fixture
def slow_server() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Slow) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def stream_client() -> Path:
    found = load.stream_client()
    if isinstance(found, str):
        pytest.skip(found)
    return found


def test_the_stream_client_times_the_first_text_and_not_the_first_byte(slow_server: int, tmp_path: Path) -> None:
    bodies = workload.write(tmp_path / "bodies", [{"prompt": "one"}, {"prompt": "two"}])
    found = load.streams(
        stream_client(), slow_server, "/", bodies, '"text": "', first=0, clients=4, warm_up=0, seconds=2
    )
    assert found.figures["requests"] >= 1
    assert found.figures["ttft_p50_ms"] > 95
    assert found.figures["p50_ms"] > found.figures["ttft_p50_ms"] + 40
    assert found.cpu_share < 0.2


def test_the_stream_client_does_not_hide_failures(slow_server: int, tmp_path: Path) -> None:
    bodies = workload.write(tmp_path / "bodies", [{}])
    with pytest.raises(CourseError, match="requests failed under load") as raised:
        load.streams(
            stream_client(), slow_server, "/broken", bodies, '"text": "', first=0, clients=1, warm_up=0, seconds=1
        )
    assert "503" in raised.value.why


def test_prompts_are_all_different_and_of_the_length_that_is_said(tmp_path: Path) -> None:
    tutor = workload.newest(workload.repository(tmp_path) / "models" / "tutor")
    texts = workload.texts(tutor, workload.mixed_lengths)
    assert len({prompt for prompt, _ in texts}) == len(texts) == workload.PROMPTS
    assert {tokens for _, tokens in texts} == set(range(8, 257))
    assert texts == workload.texts(tutor, workload.mixed_lengths)


@needs_wrk
def test_a_quick_run_gives_figures_that_follow_the_schema(tmp_path: Path) -> None:
    names = ["ours", "flask"]
    try:
        contestants.environment()
    except CourseError as error:
        pytest.skip(f"the peers' environment can't be made here: {error.why.splitlines()[-1:]}")
    file = tmp_path / "serve.json"
    command = [*COURSE, "bench", "serve", "--quick", "--json", str(file), *(f"--only={name}" for name in names)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=800, env=working_in(tmp_path)
    )  # a loaded machine
    assert done.returncode == 0, done.stderr
    assert left_behind(tmp_path) == []
    found = serve.read(file)
    assert found["preliminary"]
    for entry in (found["ours"], found["peers"]["flask"]):
        assert entry["why"] == {}
        for name in ("tokens_per_s", "p50_ms", "p99_ms", "ttft_p99_ms", "mixed_tokens_per_s", "one_client_p50_ms"):
            assert entry[name] > 0, name
        assert entry["p99_ms"] >= entry["p50_ms"]
        assert entry["ttft_p99_ms"] >= entry["ttft_p50_ms"]
        assert entry["classifier"]["requests_per_s"] > 0
        assert entry["start_to_ready_s"] > 0 and entry["rss_mb"] > 20
    assert found["bare_engine"]["tokens_per_s"] > 0
    assert 0 < found["load_client"]["cpu_share"]["generate"] < 1
    assert found["goals"]["throughput over the bare engine"]["value"] == pytest.approx(
        found["ours"]["tokens_per_s"] / found["bare_engine"]["tokens_per_s"], abs=0.001
    )
    document = tmp_path / "document.md"
    document.write_text("before\n<!-- course bench serve: begin -->\nold\n<!-- course bench serve: end -->\nafter\n")
    serve_table.write(found, document)
    serve_table.write(found, document)
    text = document.read_text()
    assert "old" not in text and text.startswith("before\n") and text.endswith("\nafter\n")
    assert f"{found['ours']['tokens_per_s']:,.0f}" in text and "Preliminary" in text


@needs_wrk
def test_a_bench_that_is_told_to_end_leaves_no_server(tmp_path: Path) -> None:
    command = [*COURSE, "bench", "serve", "--quick", "--only=ours"]
    with (tmp_path / "output").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=working_in(tmp_path))
    end = time.monotonic() + 240
    while not left_behind(tmp_path) and time.monotonic() < end:
        assert process.poll() is None, (tmp_path / "output").read_text()
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait(240) == 128 + signal.SIGTERM, (tmp_path / "output").read_text()

    def gone() -> None:
        if left := left_behind(tmp_path):
            raise waits.NotYet(str(left))

    waits.until(gone, what="the servers to be gone", timeout=10)


def test_goals_compare_with_the_best_of_the_peers() -> None:
    def entry(tokens: float | None, p99: float | None) -> dict[str, Any]:
        return {"tokens_per_s": tokens, "p99_ms": p99, "mixed_tokens_per_s": tokens}

    found = goals(
        {
            "ours": entry(900, 50),
            "bare_engine": entry(1000, 40),
            "peers": {"one": entry(300, 40), "two": entry(500, 90), "absent": entry(None, None)},
        }
    )
    assert found["throughput over the bare engine"] == {"value": 0.9, "goal": ">= 0.9", "met": True}
    assert found["throughput over the best peer"]["value"] == 1.8
    assert found["p99 over the best peer"] == {"value": 1.25, "goal": "<= 1", "met": False}
    assert found["first token p99 over the best peer"] == {"value": None, "goal": "<= 1", "met": None}


def test_a_file_that_holds_something_else_is_refused_in_a_sentence(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"tokens_per_s": 1}))
    with pytest.raises(CourseError, match="holds no figures"):
        serve.read(other)
