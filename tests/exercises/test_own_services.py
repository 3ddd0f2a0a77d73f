"""Services that learners write themselves and what lies beside their files: a check says what it saw, and never breaks."""

from __future__ import annotations

from pathlib import Path

import pytest

from course_lib import lab
from course_lib.exercises import lab_4_4_1 as exercises
from course_lib.images import layer_files
from course_lib.lab import exercise, store

LAB = "4.4.1"

RECIPE = """ARG BASE_IMAGE
FROM ${BASE_IMAGE}
WORKDIR /srv
COPY router.py train.py ./
COPY data ./data
RUN python3 train.py --longest=4 --smoothing=0.1
COPY --from=mine own.py ./
HEALTHCHECK --interval=1s CMD ["true"]
CMD ["python3", "own.py"]
"""

SAYS_FINE = """
from http.server import BaseHTTPRequestHandler, HTTPServer

class Fine(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"fine")

def serve():
    HTTPServer(("", 8080), Fine).serve_forever()
"""

ALONE = SAYS_FINE + "serve()\n"

#: The first process waits for the second, which holds the model and listens, too: both end together.
ALL_IN_ONE = (
    SAYS_FINE
    + """
import os
if os.fork():
    os.wait()
else:
    open("/proc/self/comm", "w").write("model-worker")
    serve()
"""
)


@pytest.mark.docker
@pytest.mark.parametrize(
    ("name", "service", "words"),
    [
        ("layer-order", ALONE, "POST /route was answered with status 200: fine"),
        ("dead-model", ALONE, "no process called model-worker could be killed"),
        ("dead-model", ALL_IN_ONE, "POST /route got no answer"),
    ],
    ids=["no-json", "no-worker", "ends-with-its-model"],
)
def test_a_service_of_ones_own_gets_an_answer_in_words(name: str, service: str, words: str, learner: Path) -> None:
    lab.begin(LAB)
    folder = lab.files(name)
    (folder / "Dockerfile").write_text(RECIPE)
    (folder / "own.py").write_text(service)
    lab.check(name)
    status, said, _ = store.exercises(store.run_id())[f"{LAB}/{name}"]
    assert status == "not_yet", said
    assert words in said


@pytest.mark.docker
def test_a_token_that_was_found_is_right_when_the_cell_runs_again(learner: Path) -> None:
    lab.begin(LAB)
    leaky = exercises.leak()
    held = {path: content for _, files in layer_files(leaky) for path, content in files.items()}
    found = held["/srv/.env"].decode().strip().removeprefix("ROUTER_TOKEN=")
    assert exercises.leak() == leaky
    lab.check("leaked-secret", found)
    assert store.exercises(store.run_id())[f"{LAB}/leaked-secret"][0] == "passed"


def test_what_a_file_browser_leaves_is_no_attempt(learner: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = exercise.find(LAB, "small-image")
    exercise.files(one)
    (one.work / ".DS_Store").write_bytes(b"\x00\x00\x00\x01Bud1\xff")
    capsys.readouterr()
    exercise.files(one)
    assert "Bud1" not in capsys.readouterr().out
    assert exercise.evaluate(one)[0] == "not_attempted"


def test_a_file_that_is_no_text_can_be_shown(learner: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = exercise.find(LAB, "least-privilege")
    exercise.files(one)
    (one.work / "picture.png").write_bytes(b"\x89PNG\xff\xfe")
    exercise.files(one)
    assert "�PNG" in capsys.readouterr().out
