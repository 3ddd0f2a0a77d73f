"""The ticket router over HTTP: one process listens, a second one holds the model.

GET  /healthz                    the HTTP side lives (it knows nothing of the model)
POST /route {"text": "..."}      {"label", "confidence", "model", "version"}; 503 when the model does not answer

PORT (8080), MODEL_PATH (/srv/model.json) and JOURNAL (a file that gets a line a question; nothing: standard output).
Written flawed on purpose: a dead model is not started again. Noticing it is the health check's work.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from router import Router

VERSION = "1"
PORT = int(os.environ.get("PORT", "8080"))
MODEL_PATH = Path(os.environ.get("MODEL_PATH", "/srv/model.json"))
JOURNAL = os.environ.get("JOURNAL", "")
SECONDS = 2.0


def serve_model(path: Path, mine: Connection, theirs: Connection) -> None:
    """The second process: answers one text after the other until the first process is gone."""
    theirs.close()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        Path("/proc/self/comm").write_text("model-worker")  # the name that `docker top` and `ps` show
    except OSError:
        pass
    router = Router.load(path)
    try:
        while True:
            label, confidence = router.route(mine.recv())
            mine.send({"label": label, "confidence": round(confidence, 3), "model": router.version})
    except (EOFError, KeyboardInterrupt):
        pass


class Model:
    """The first process's end of the line to the model."""

    def __init__(self, path: Path) -> None:
        forking = multiprocessing.get_context("fork")
        self._line, far_end = forking.Pipe()
        self._one_at_a_time = threading.Lock()
        forking.Process(target=serve_model, args=(path, far_end, self._line), daemon=True).start()
        far_end.close()

    def route(self, text: str) -> dict[str, Any]:
        """Asks the model. Raises OSError or EOFError when it is dead or silent."""
        with self._one_at_a_time:
            self._line.send(text)
            if not self._line.poll(SECONDS):
                self._line.close()  # an answer that comes too late must not go to the next question
                raise TimeoutError(f"the model said nothing for {SECONDS:.0f} s")
            return dict(self._line.recv())


class Handler(BaseHTTPRequestHandler):
    model: Model

    def do_GET(self) -> None:
        if self.path == "/healthz":
            self.answer(200, {"http": "alive", "version": VERSION})
        else:
            self.answer(404, {"error": "there is GET /healthz and POST /route"})

    def do_POST(self) -> None:
        if self.path != "/route":
            self.answer(404, {"error": "there is GET /healthz and POST /route"})
            return
        try:
            text = str(json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))["text"])
        except (ValueError, KeyError, TypeError):
            self.answer(400, {"error": 'send JSON like {"text": "my pod is Pending"}'})
            return
        try:
            found = self.model.route(text)
        except (OSError, EOFError) as gone:
            self.answer(503, {"error": f"the model does not answer: {type(gone).__name__}"})
            return
        try:
            note(found["label"], text)
        except OSError as refused:
            self.answer(500, {"error": f"the journal can't be written: {refused}"})
            return
        self.answer(200, {**found, "version": VERSION})

    def answer(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Health probes would fill the log; questions are in the journal."""


def note(label: str, text: str) -> None:
    line = f"{label}\t{' '.join(text.split())}"
    if not JOURNAL:
        print(line, flush=True)
        return
    with Path(JOURNAL).open("a") as journal:
        journal.write(line + "\n")


def main() -> None:
    if not MODEL_PATH.is_file():
        sys.exit(f"no model at {MODEL_PATH}: train one with train.py, or say in MODEL_PATH where it is")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # process 1 gets no default: without this, `docker stop` takes 10 s
    Handler.model = Model(MODEL_PATH)  # before the first thread: a fork copies only the thread that forks
    server = ThreadingHTTPServer(("", PORT), Handler)
    print(f"listening on {PORT} with {MODEL_PATH}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
