"""Backup and restore: the answers come back, whatever happened between; a bad file changes nothing."""

from __future__ import annotations

import gzip
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import VOLUMES, Process, Rag, environment, make_chroma, run, wait_for
from rag_service.backup import read
from rag_service.errors import StartError

QUESTION = "Does a volume outlive the container that used it?"


def answer(rag: Rag) -> dict[str, Any]:
    """An answer without what differs from one time to the next."""
    return {key: value for key, value in rag.ask(QUESTION).items() if key not in ("seconds", "cached")}


@pytest.fixture
def saved(fresh: Rag, tmp_path: Path) -> Path:
    """A backup of two documents."""
    fresh.add("docs/a.md", VOLUMES)
    fresh.add("b.md", "Ärger mit Umlauten und 🐳.")
    file = tmp_path / "backup.jsonl.gz"
    done = run("backup", str(file), **fresh.settings)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{file}: 4 passages of 2 documents\n"
    return file


def rewrite(file: Path, change: Any) -> None:
    """Change the lines of a backup."""
    lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    file.write_bytes(gzip.compress("\n".join(change(lines)).encode()))


def test_answers_come_back_after_everything_was_lost(
    fresh: Rag, saved: Path, tmp_path: Path, inference: Process
) -> None:
    before = answer(fresh)
    with make_chroma(tmp_path) as another:
        settings = {**fresh.settings, "CHROMA_URL": another.url}
        done = run("restore", str(saved), **settings)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"{fresh.settings['COLLECTION']}: 4 passages of 2 documents\n"
        with Rag(another, inference, COLLECTION=fresh.settings["COLLECTION"]) as rag:
            assert answer(rag) == before
            assert rag.sources() == {"b.md": 1, "docs/a.md": 3}


def test_a_restore_replaces_what_is_there_under_a_running_service(fresh: Rag, saved: Path) -> None:
    before = answer(fresh)
    fresh.add("docs/a.md", "Nothing of that any more.")
    fresh.add("new.md", "Written after the backup.")
    fresh.client.delete("/documents/b.md")
    assert run("restore", str(saved), **fresh.settings).returncode == 0
    assert answer(fresh) == before
    assert fresh.sources() == {"b.md": 1, "docs/a.md": 3}
    wait_for(lambda: fresh.metric("rag_chunks") == 4)
    assert fresh.add("docs/a.md", "Replaced again.") == 1
    assert fresh.sources() == {"b.md": 1, "docs/a.md": 1}


def test_the_file_says_what_it_holds(saved: Path, fresh: Rag) -> None:
    header, *rows = (json.loads(line) for line in gzip.decompress(saved.read_bytes()).decode().splitlines())
    assert header.keys() == {"format", "written", "chroma", "collection", "embeddings_model", "dimension", "count"}
    assert (header["count"], header["dimension"], header["embeddings_model"]) == (4, 384, "embedder")
    assert header["collection"] == fresh.settings["COLLECTION"]
    assert len(rows) == 4
    assert {row["text"] for row in rows} >= {"Ärger mit Umlauten und 🐳."}
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]  # and nothing half-written


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-20])


def flipped(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(bytes(content))


def short(file: Path) -> None:
    rewrite(file, lambda lines: lines[:-1])


def other_size(file: Path) -> None:
    rewrite(file, lambda lines: [lines[0].replace('"dimension": 384', '"dimension": 3'), *lines[1:]])


def consistent_but_other_size(file: Path) -> None:
    def cut(lines: list[str]) -> list[str]:
        rows = [json.loads(line) for line in lines[1:]]
        return [
            lines[0].replace('"dimension": 384', '"dimension": 3'),
            *(json.dumps({**row, "vector": row["vector"][:3]}) for row in rows),
        ]

    rewrite(file, cut)


def other_embedder(file: Path) -> None:
    rewrite(file, lambda lines: [lines[0].replace('"embedder"', '"MiniLM"'), *lines[1:]])


def no_gzip(file: Path) -> None:
    file.write_text("hello")


def empty(file: Path) -> None:
    file.write_bytes(b"")


def gone(file: Path) -> None:
    file.unlink()


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (truncated, "give another backup"),
        (flipped, "give another backup"),
        (short, "it has 3 passages where its header says 4"),
        (other_size, "is incomplete"),
        (
            consistent_but_other_size,
            "the backup has vectors of 3 numbers by 'embedder', and the embedder 'embedder' gives 384",
        ),
        (other_embedder, "by 'MiniLM'"),
        (no_gzip, "give another backup"),
        (empty, "give another backup"),
        (gone, "is not there"),
    ],
)
def test_a_bad_file_changes_nothing(fresh: Rag, saved: Path, spoil: Any, said: str) -> None:
    before, sources = answer(fresh), fresh.sources()
    spoil(saved)
    done = run("restore", str(saved), **fresh.settings)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert (answer(fresh), fresh.sources()) == (before, sources)


def test_damage_anywhere_is_noticed(saved: Path) -> None:
    """gzip, JSON or the header notices it, each by an error of its own."""
    content = saved.read_bytes()
    for at in range(
        80, len(content), max(1, len(content) // 60)
    ):  # behind gzip's header, which holds a time and a name
        damaged = bytearray(content)
        damaged[at] ^= 255
        saved.write_bytes(bytes(damaged))
        with pytest.raises(StartError, match="Nothing was changed"):
            read(saved)
        saved.write_bytes(content[:at])
        with pytest.raises(StartError, match="Nothing was changed"):
            read(saved)


def test_what_stops_a_backup(fresh: Rag, chroma: Process, tmp_path: Path) -> None:
    done = run("backup", str(tmp_path / "x.gz"), **fresh.settings)
    assert (done.returncode, done.stderr[:20]) == (1, "rag-service: There a")  # nothing ingested
    done = run("backup", str(tmp_path / "x.gz"), **{**fresh.settings, "CHROMA_URL": "http://127.0.0.1:9"})
    assert (done.returncode, done.stderr.startswith("rag-service: chroma gives no answer")) == (1, True)
    fresh.add("a.md", VOLUMES)
    done = run("backup", str(tmp_path / "no" / "x.gz"), **fresh.settings)
    assert (done.returncode, "can't be written" in done.stderr) == (1, True)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_backup_leaves_the_former_one(saved: Path, fresh: Rag) -> None:
    before = saved.read_bytes()
    done = run("backup", str(saved), **{**fresh.settings, "CHROMA_URL": "http://127.0.0.1:9"})
    assert done.returncode == 1
    assert saved.read_bytes() == before


def test_a_backup_every_second_keeps_the_newest(fresh: Rag, tmp_path: Path) -> None:
    fresh.add("a.md", VOLUMES)
    other = tmp_path / "notes.jsonl.gz"
    other.write_text("not ours")
    command = [sys.executable, "-m", "rag_service", "backup", "--every", "1", "--keep", "2", str(tmp_path)]
    keeper = subprocess.Popen(command, env=environment(**fresh.settings), stdout=subprocess.PIPE, text=True)
    try:
        seen: set[str] = set()

        def three_were_made() -> bool:
            seen.update(path.name for path in tmp_path.glob(f"{fresh.settings['COLLECTION']}-*.gz"))
            return len(seen) >= 3

        wait_for(three_were_made)
        time.sleep(0.5)
        keeper.send_signal(signal.SIGTERM)
        assert keeper.wait(timeout=20) == 0
    finally:
        keeper.kill()
        output = keeper.communicate()[0]
    assert all(json.loads(line)["message"] == "backup" for line in output.splitlines())
    left = sorted(path.name for path in tmp_path.glob(f"{fresh.settings['COLLECTION']}-*.gz"))
    assert len(left) == 2
    assert other.read_text() == "not ours"
    assert run("restore", str(tmp_path / left[-1]), **fresh.settings).returncode == 0


def probe(*arguments: str) -> tuple[int, str]:
    """The exit code of a health probe, and its line."""
    command = [sys.executable, "-m", "rag_service.health", *arguments]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout


def test_before_there_is_anything_to_copy_the_keeper_is_well(fresh: Rag, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rag_service", "backup", "--every", "1", "--keep", "2", str(tmp_path)]
    keeper = subprocess.Popen(command, env=environment(**fresh.settings), stdout=subprocess.PIPE, text=True)
    mark = tmp_path / "nothing-to-copy"
    try:
        wait_for(mark.exists)
        code, line = probe("--backups", str(tmp_path), "60")
        assert (code, line.startswith("healthy: nothing-to-copy is ")) == (0, True)
        fresh.add("a.md", VOLUMES)
        wait_for(lambda: any(tmp_path.glob("*.jsonl.gz")) and not mark.exists())
    finally:
        keeper.terminate()
        output = keeper.communicate(timeout=20)[0]
    first, *_, last = (json.loads(line) for line in output.splitlines())
    assert first["message"] == last["message"] == "backup"
    assert "no documents" in first["result"] and "passages of 1 documents" in last["result"]
    old = time.time() - 100
    mark.touch()
    for file in tmp_path.iterdir():
        os.utime(file, (old, old))
    assert probe("--backups", str(tmp_path), "40")[0] == 1


def test_the_probe_of_the_backups(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert probe("--backups", folder, "60") == (1, f"unhealthy: {folder} has no backup yet\n")
    for name, age in (("course-1.jsonl.gz", 900), ("course-2.jsonl.gz", 10_000), ("notes.txt", 0)):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    code, line = probe("--backups", folder, "600")
    assert (code, line.startswith("healthy: course-1.jsonl.gz is 9")) == (0, True)
    code, line = probe("--backups", folder, "400")
    assert (code, line.startswith("unhealthy: course-1.jsonl.gz is 9")) == (1, True)
    for wrong in (("--backups", folder), ("--backups", folder, "often"), ("--backup",)):
        assert probe(*wrong) == (1, "unhealthy: write [--ready | --backups FOLDER SECONDS]\n")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(fresh: Rag, tmp_path: Path) -> None:
    fresh.add("a.md", VOLUMES)
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    done = run("backup", str(tmp_path / "x.gz"), **fresh.settings)
    assert "can't be written" in done.stderr
