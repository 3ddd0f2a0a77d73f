"""``inference-server batch``: formats, errors a line, and runs that are killed at any moment and lose or repeat nothing."""

import csv
import json
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import environment, frozen, run, wait_for
from inference_server.batch import COLUMNS, Results, read_lines
from inference_server.errors import StartError

Samples = list[dict[str, Any]]


def batch(*arguments: object, status: int = 0, **settings: object) -> dict[str, Any]:
    """Run it to its end; what it reports."""
    ended = run("batch", *map(str, arguments), **settings)
    assert ended.returncode == status, ended.stderr
    assert "Traceback" not in ended.stderr
    report: dict[str, Any] = json.loads(ended.stdout)
    return report


def refused(*arguments: object, status: int = 1, **settings: object) -> str:
    ended = run("batch", *map(str, arguments), **settings)
    assert ended.returncode == status, ended.stdout
    assert "Traceback" not in ended.stderr
    return ended.stderr


def results(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def write_rows(path: Path, samples: Samples, times: int = 1, header: bool = False) -> Path:
    with path.open("w") as file:
        if header:
            file.write(",".join(f"p{index}" for index in range(64)) + "\n")
        for sample in samples * times:
            file.write(",".join(map(str, sample["pixels"])) + "\n")
    return path


def share_right(found: list[dict[str, Any]], samples: Samples) -> float:
    pairs = zip(found, samples, strict=True)
    return sum(bool(item["predicted_class"] == sample["label"]) for item, sample in pairs) / len(samples)


@pytest.mark.parametrize("out", ["out.jsonl", "out.csv"])
@pytest.mark.parametrize("header", [False, True])
def test_rows(tmp_path: Path, samples: Samples, out: str, header: bool) -> None:
    source = write_rows(tmp_path / "rows.csv", samples, header=header)
    report = batch(source, tmp_path / out, "--batch-size", 7)
    assert (report["lines"], report["failed"], report["complete"]) == (len(samples), 0, True)
    assert (report["model"], report["version"]) == ("digits", "2")
    assert report["samples_per_s"] > 10
    found = results(tmp_path / out)
    assert [int(item["line"]) for item in found] == [index + 1 + header for index in range(len(samples))]
    assert share_right(found, samples) > 0.95
    assert not (tmp_path / f"{out}.partial").exists()
    old = batch(source, tmp_path / f"old-{out}", "--model", "digits:1")
    assert old["version"] == "1"
    assert share_right(results(tmp_path / f"old-{out}"), samples) < share_right(found, samples)


def test_texts_of_a_column(tmp_path: Path) -> None:
    source = tmp_path / "texts.csv"
    source.write_text('n,question\n1,"What is, a pod?\nIn short?"\n2,What is a layer?\n3\n\n4,\n', encoding="utf-8-sig")
    report = batch(source, tmp_path / "out.csv", "--column", "question", "--max-tokens", 5, status=3)
    assert (report["model"], report["lines"], report["failed"]) == ("tutor", 4, 2)
    found = results(tmp_path / "out.csv")
    assert [item["line"] for item in found] == ["2", "4", "5", "7"]
    assert [bool(item["text"]) for item in found] == [True, True, False, False]
    assert found[2]["error"] == "The line has 1 cells and none for 'question'."
    assert "takes a text that is not empty" in found[3]["error"]


def test_json_lines(tmp_path: Path, samples: Samples) -> None:
    row = samples[0]["pixels"]
    source = tmp_path / "rows.jsonl"
    source.write_bytes(
        b"\n".join(
            [
                json.dumps(row).encode(),
                b"",
                b'{"bad',
                b"\xff",
                json.dumps({"id": "a7", "pixels": row}).encode(),
                b"[1]",
                b"[" * 100_000,
            ]
        )
    )
    report = batch(source, tmp_path / "out.jsonl", status=3)
    assert (report["lines"], report["failed"]) == (6, 4)
    found = results(tmp_path / "out.jsonl")
    assert [item["line"] for item in found] == [1, 3, 4, 5, 6, 7]
    assert [item.get("predicted_class") for item in found] == [
        samples[0]["label"],
        None,
        None,
        samples[0]["label"],
        None,
        None,
    ]
    assert found[3]["id"] == "a7"
    assert found[1]["error"]["code"] == "bad_line"
    chats = tmp_path / "chats.ndjson"
    chats.write_text('{"messages": [{"role": "user", "content": "What is a pod?"}]}\n"What is a pod?"\n')
    assert batch(chats, tmp_path / "chats.jsonl", "--max-tokens", 6)["model"] == "tutor"
    first, second = results(tmp_path / "chats.jsonl")
    assert first["text"] == second["text"]


def test_a_folder_in_parts(tmp_path: Path, samples: Samples) -> None:
    """As a Kubernetes Indexed Job does it: every line in one part and in one only."""
    folder = tmp_path / "in"
    folder.mkdir()
    write_rows(folder / "b.csv", samples[:30])
    (folder / "a.jsonl").write_text("".join(f"{json.dumps(sample['pixels'])}\n" for sample in samples[30:50]))
    (folder / "README.md").write_text("not an input")
    whole = batch(folder, tmp_path / "whole.jsonl")
    assert whole["lines"] == 50
    parts: list[dict[str, Any]] = []
    for index in range(3):
        report = batch(folder, tmp_path / "out.jsonl", "--shards", 3, JOB_COMPLETION_INDEX=index)
        assert report["out"].endswith(f"out-{index:05d}-of-00003.jsonl")
        parts += results(Path(report["out"]))

    def essence(found: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
        return sorted((item["file"], item["line"], item["predicted_class"]) for item in found)

    assert essence(parts) == essence(results(tmp_path / "whole.jsonl"))
    assert "would be read as input" in refused(folder, folder / "out.jsonl")


def test_refusals(tmp_path: Path, samples: Samples) -> None:
    source = write_rows(tmp_path / "rows.csv", samples[:3])
    out = tmp_path / "out.jsonl"
    assert "there is no such file or folder" in refused(tmp_path / "no.csv", out)
    assert "ends in .csv, .jsonl, .ndjson" in refused(Path(__file__), out)
    (tmp_path / "empty").mkdir()
    assert "holds no .csv, .jsonl, .ndjson file" in refused(tmp_path / "empty", out)
    assert "--model cats: there is no such model; found: digits:1" in refused(source, out, "--model", "cats")
    assert "has no column 'x'" in refused(source, out, "--column", "x")
    assert "nobody said of how many: add --shards N" in refused(source, out, JOB_COMPLETION_INDEX=0)
    assert "counts from 0 to 1" in refused(source, out, "--shards", 2, JOB_COMPLETION_INDEX=2)
    assert "counts from 0 to 1" in refused(source, out, SHARDS=2)
    assert "have to be whole numbers" in refused(source, out, SHARDS="two")
    assert "it has to be at least 1" in refused(source, out, "--batch-size", -1)
    assert "options.temperature" in refused(source, out, "--temperature", 9)
    assert "no model takes these" in refused(source, out, MODEL_PATH=Path(__file__).parents[1] / "models" / "tutor")
    assert "usage: inference-server batch" in refused(status=2)
    assert not out.exists()


def test_what_is_whole_stays(tmp_path: Path, samples: Samples) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text(f"{json.dumps(samples[0]['pixels'])}\n[1]\n")
    out = tmp_path / "out.jsonl"
    batch(source, out, status=3)
    before = out.read_bytes()
    again = batch(source, out, status=3)
    assert (again["answered"], again["skipped"], again["failed"]) == (0, 2, 1)
    assert out.read_bytes() == before


def start(*arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "inference_server", "batch", *map(str, arguments)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def partial_with(path: Path, lines: int) -> Callable[[], bool]:
    """A condition: so many lines are there."""
    return lambda: count(path) >= lines


def count(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


@pytest.mark.parametrize("out", ["out.jsonl", "out.csv"])
def test_killed_again_and_again(tmp_path: Path, out: str) -> None:
    """SIGKILL at moments nobody chose, and the end of the file torn besides: each line is answered once, in order."""
    source = tmp_path / "texts.jsonl"
    source.write_text("".join(f'{{"id": {n}, "text": "Question {n}: what is a layer?"}}\n' for n in range(900)))
    partial = tmp_path / f"{out}.partial"
    chance = random.Random(441)
    options = ("--max-tokens", 12, "--batch-size", 8)
    for goal in (20, 90, 200):
        process = start(source, tmp_path / out, *options)
        wait_for(partial_with(partial, goal), 60)
        time.sleep(chance.random() / 50)
        process.kill()
        process.wait()
        process.communicate()
        assert count(partial) < 900
        if goal > 20:  # as if the disk had taken half a line
            with partial.open("r+b") as file:
                file.truncate(partial.stat().st_size - chance.randrange(1, 20))
    report = batch(source, tmp_path / out, *options)
    assert report["skipped"] > 150
    assert report["skipped"] + report["answered"] == 900
    found = results(tmp_path / out)
    assert [int(item["id"]) for item in found] == list(range(900))
    assert all(item["text"] for item in found)


def test_sigterm_finishes_what_runs(tmp_path: Path) -> None:
    source = tmp_path / "texts.jsonl"
    source.write_text('"What is a Docker image?"\n' * 400)
    out = tmp_path / "out.jsonl"
    process = start(source, out, "--batch-size", 8)
    wait_for(lambda: count(tmp_path / "out.jsonl.partial") >= 10, 60)
    with frozen(process):  # or it would be done before the second run has started
        assert "another run is writing" in refused(source, out)
        process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    report = json.loads(said)
    assert not report["complete"]
    assert 10 <= report["answered"] == count(tmp_path / "out.jsonl.partial") < 400
    assert not out.exists()
    (tmp_path / "other.jsonl").write_text('"What is a pod?"\n' * 3)
    assert "was begun with another input" in refused(tmp_path / "other.jsonl", out)
    rest = batch(source, out, "--max-tokens", 4)
    assert rest["skipped"] == report["answered"]
    assert len(results(out)) == 400


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_a_checkpoint_torn_anywhere(tmp_path: Path, suffix: str) -> None:
    """Cut at any byte, what is whole before the cut is kept, and nothing else."""
    source = tmp_path / "texts.jsonl"
    source.write_text('"one"\n"two"\n"three"\n"four"\n')
    out = tmp_path / f"out{suffix}"
    partial = tmp_path / f"{out.name}.partial"
    answers: list[dict[str, Any]] = [
        {"model": "tutor", "version": "1", "text": 'He said "no",\nand left.', "finish_reason": "stop"},
        {"model": "tutor", "version": "1", "error": {"message": 'Line "2"\nis bad', "code": "x"}},
        {"model": "tutor", "version": "1", "text": "größer", "finish_reason": "stop"},
    ]
    with Results(out, COLUMNS["generate"], "tutor:1") as made:
        lines = read_lines(source, None)
        made.resume(iter(()))
        ends = [partial.stat().st_size]
        for line, answer in zip(lines, answers, strict=False):
            made.write([{**line.place, **answer}])
            ends.append(partial.stat().st_size)
    whole = partial.read_bytes()
    for cut in range(len(whole) + 1):
        partial.write_bytes(whole[:cut])
        with Results(out, COLUMNS["generate"], "tutor:1") as made:
            lines = read_lines(source, None)
            tally = made.resume(lines)
            kept = sum(end <= cut for end in ends[1:])
            assert (tally.skipped, tally.failed) == (kept, kept >= 2)
            assert partial.stat().st_size == ends[kept]
            assert next(lines).item == ["one", "two", "three", "four"][kept]
    with Results(out, COLUMNS["generate"], "tutor:2") as made, pytest.raises(StartError, match="begun with tutor:1"):
        made.resume(read_lines(source, None))


def test_progress_and_report_go_apart(tmp_path: Path, samples: Samples) -> None:
    source = write_rows(tmp_path / "rows.csv", samples, times=5)
    ended = run("batch", str(source), str(tmp_path / "out.jsonl"))
    assert len(ended.stdout.splitlines()) == 1
    assert re.search(rf"{5 * len(samples):,} lines, 0 failed, [\d,.]+ a second", ended.stderr)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl", "rows.csv"]
