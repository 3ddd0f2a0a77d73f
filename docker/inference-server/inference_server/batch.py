"""``inference-server batch IN OUT``: every line of a file or folder answered in this process, without HTTP. What a Kubernetes Job runs.

Results are written in the order of the lines into ``OUT.partial``, which is at the same time the checkpoint: a run that was killed
drops a torn last line, skips what is there and goes on. Once all is answered the file becomes ``OUT``, so ``OUT`` is always whole.
"""

import argparse
import asyncio
import csv
import fcntl
import io
import json
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from inference_server.answers import Model, Parameters, answer_all, kind_of, named, number
from inference_server.errors import RequestError, StartError
from inference_server.metrics import Metrics
from inference_server.models import Kind, ModelSpec, find_models, version_key
from inference_server.registry import Registry
from inference_server.settings import Settings, read_settings
from inference_server.upstream import upstream_models

DOWN = frozenset({"engine_down", "upstream_down", "upstream_silent"})  # not the line's fault
SUFFIXES = (".csv", ".jsonl", ".ndjson")
EXIT_FAILED_LINES = 3
ROWS_A_BATCH = 256
PROGRESS_SECONDS = 10.0
SCREEN_SECONDS = 0.5
COLUMNS: dict[Kind, tuple[str, ...]] = {
    "predict": ("predicted_class", "confidence"),
    "generate": ("text", "finish_reason"),
}


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the input: where it stands, what it asks, or why it can't be read."""

    place: dict[str, Any]
    item: Any = None
    error: str = ""


@dataclass(slots=True)
class Tally:
    """How far it is. ``skipped`` lines were answered by an earlier run."""

    skipped: int = 0
    answered: int = 0
    failed: int = 0


def batch(arguments: list[str]) -> int:
    """Run to the end; returns 0, 1 (refused or engine down), 2 (not understood), 3 (some lines failed) or 128 plus a signal."""
    asked = _arguments(arguments)
    try:
        settings = read_settings()
        shard = _shard(asked.shards, asked.shard)
        out = _shard_path(asked.out, shard)
        if asked.source.is_dir() and asked.source.resolve() == out.resolve().parent:
            raise StartError(f"{out} lies in the input folder and would be read as input: write it elsewhere.")
        given = {
            name: getattr(asked, name)
            for name in ("max_tokens", "temperature", "seed")
            if getattr(asked, name) is not None
        }
        parameters = Parameters.read(given, "options")
        job = Job(asked.source, out, shard, asked.column, asked.batch_size, parameters, asked.model, settings)
        return asyncio.run(job.run())
    except (StartError, RequestError) as error:
        print(f"inference-server: {error}", file=sys.stderr)
    except OSError as error:
        print(f"inference-server: {error.filename}: {error.strerror}.", file=sys.stderr)
    return 1


def _arguments(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "inference-server batch",
        description="Answer every line of a file or of a folder of files. A second run goes on where the first one was stopped.",
        epilog="MODEL_PATH and the other settings of README.md count here, too.",
    )
    parser.add_argument("source", metavar="IN", type=Path, help="a .csv, .jsonl or .ndjson file, or a folder of these")
    parser.add_argument("out", metavar="OUT", type=Path, help="JSON lines, or CSV when its name ends in .csv")
    parser.add_argument("--model", help="name, or name:version; without it the first model that takes such lines")
    parser.add_argument("--column", help="CSV: the column that holds a text (without it a line is a row of numbers)")
    parser.add_argument("--batch-size", type=int, help=f"rows a run ({ROWS_A_BATCH}), or texts at once (twice SLOTS)")
    parser.add_argument("--max-tokens", type=int, help="texts: most tokens an answer may have")
    parser.add_argument("--temperature", type=float, help="texts: as in a request")
    parser.add_argument("--seed", type=int, help="texts: as in a request")
    parser.add_argument("--shards", type=int, help="parts the lines are dealt to, one after the other ($SHARDS)")
    parser.add_argument("--shard", type=int, help="the part that is this run's, from 0 ($JOB_COMPLETION_INDEX)")
    return parser.parse_args(arguments)


def _shard(shards: int | None, shard: int | None) -> tuple[int, int]:
    """(this part, number of parts), from the options or from what a Kubernetes Indexed Job sets. Raises StartError."""
    try:
        parts = shards if shards is not None else int(os.environ.get("SHARDS") or 0) or None
        part = shard if shard is not None else int(os.environ.get("JOB_COMPLETION_INDEX") or -1)
    except ValueError:
        raise StartError("SHARDS and JOB_COMPLETION_INDEX have to be whole numbers.") from None
    if parts is None:
        if part >= 0:
            raise StartError(
                f"this is part {part} (JOB_COMPLETION_INDEX), and nobody said of how many: add --shards N, the Job's completions."
            )
        return 0, 1
    if parts == 1 and part < 0:
        return 0, 1
    if not 0 <= part < parts:
        raise StartError(f"part {part} of {parts}: --shard (or JOB_COMPLETION_INDEX) counts from 0 to {parts - 1}.")
    return part, parts


def _shard_path(out: Path, shard: tuple[int, int]) -> Path:
    """Each part has a file of its own: results-00002-of-00004.jsonl."""
    part, parts = shard
    return out if parts == 1 else out.with_name(f"{out.stem}-{part:05d}-of-{parts:05d}{out.suffix}")


def read_lines(source: Path, column: str | None) -> Iterator[Line]:
    """Every line of a file, or of all files of a folder in the order of their names. Raises StartError, OSError."""
    if not source.exists():
        raise StartError(f"{source}: there is no such file or folder.")
    if source.is_dir():
        files = sorted(path for path in source.iterdir() if path.suffix.lower() in SUFFIXES and path.name[0] != ".")
        if not files:
            raise StartError(f"{source} holds no {', '.join(SUFFIXES)} file.")
    elif source.suffix.lower() in SUFFIXES:
        files = [source]
    else:
        raise StartError(f"{source}: the name of an input ends in {', '.join(SUFFIXES)}.")
    for path in files:
        place = {"file": path.name} if source.is_dir() else {}
        reader = _read_csv(path, column) if path.suffix.lower() == ".csv" else _read_json_lines(path)
        for at, item, error in reader:
            own = {"id": item["id"]} if isinstance(item, dict) and isinstance(item.get("id"), str | int) else {}
            yield Line({**place, "line": at, **own}, item, error)


def _read_json_lines(path: Path) -> Iterator[tuple[int, Any, str]]:
    with path.open("rb") as file:
        for at, raw in enumerate(file, 1):
            if not raw.strip():
                continue
            try:
                yield at, json.loads(raw.removeprefix(b"\xef\xbb\xbf") if at == 1 else raw), ""
            except (ValueError, RecursionError) as error:
                yield at, None, f"The line is not JSON: {error}."


def _read_csv(path: Path, column: str | None) -> Iterator[tuple[int, Any, str]]:
    """Rows of numbers, under a header or not; or the texts of one column, under a header."""
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file)
        header: list[str] | None = None
        while True:
            at = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield at, None, f"The line is not CSV: {error}."
                continue
            if cells is None:
                return
            if not cells:
                continue
            if header is None:
                header = cells
                if column is not None:
                    if column not in header:
                        raise StartError(
                            f"{path} has no column {column!r}; its first line names {', '.join(header)[:200]}."
                        )
                    continue
                if all(isinstance(number(cell), str) for cell in cells):
                    continue
            if column is None:
                yield at, [number(cell) for cell in cells], ""
            elif header.index(column) < len(cells):
                yield at, cells[header.index(column)], ""
            else:
                yield at, None, f"The line has {len(cells)} cells and none for {column!r}."


@dataclass(slots=True)
class Job:
    """One run over one part of the input."""

    source: Path
    out: Path
    shard: tuple[int, int]
    column: str | None
    batch_size: int | None
    parameters: Parameters
    model_name: str | None
    settings: Settings
    stopped: int = 0

    async def run(self) -> int:
        """Answer what is not answered yet. Raises StartError, OSError; RequestError when the engine is down."""
        settings = self.settings
        spec = self._choose(find_models(settings.models_folder(), settings.engine, upstream=upstream_models(settings)))
        results = Results(self.out, COLUMNS[spec.kind], spec.id)
        if self.out.exists():
            tally = results.finished()
            print(f"inference-server: {self.out} is whole already: remove it to run again.", file=sys.stderr)
            return self._report(spec, tally, 0.0)
        size = self.batch_size or (ROWS_A_BATCH if spec.kind == "predict" else 2 * self.settings.slots)
        if size < 1:
            raise StartError(f"--batch-size {size}: it has to be at least 1.")
        lines = islice(read_lines(self.source, self.column), self.shard[0], None, self.shard[1])
        with results:
            tally = results.resume(lines)
            settings = replace(self.settings, max_queue=max(self.settings.max_queue, size))
            registry = Registry.load([spec], settings, Metrics())
            for each in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(each, self._stop, each)
            start = time.monotonic()
            try:
                await self._answer(registry.answerer(None, spec.name, spec.version), lines, results, tally, size)
            finally:
                registry.close()
            if not self.stopped:
                results.complete()
        return self._report(spec, tally, time.monotonic() - start)

    def _choose(self, specs: list[ModelSpec]) -> ModelSpec:
        """The model that is named, or the first one for such lines; its highest version. Raises StartError."""
        specs = [spec for spec in specs if spec.kind != "embed"]
        listed = ", ".join(spec.id for spec in specs)
        if self.model_name:
            name, _, version = self.model_name.partition(":")
            fitting = [spec for spec in specs if spec.name == name and version in ("", spec.version)]
            if not fitting:
                raise StartError(f"--model {self.model_name}: there is no such model; found: {listed}.")
        else:
            first = islice(read_lines(self.source, self.column), 100)
            kind = next((kind for line in first if (kind := kind_of(line.item))), "predict")
            fitting = [spec for spec in specs if spec.kind == kind]
            if not fitting:
                what = "texts" if kind == "generate" else "rows"
                raise StartError(f"{self.source} holds {what}, and no model takes these; found: {listed}.")
            fitting = [spec for spec in fitting if spec.name == fitting[0].name]
        return max(fitting, key=lambda spec: version_key(spec.version))

    def _stop(self, number: int) -> None:
        """First signal: finish what runs. Second: leave now; what is written stays."""
        if self.stopped:
            os._exit(128 + number)
        self.stopped = number

    async def _answer(self, model: Model, lines: Iterator[Line], results: "Results", tally: Tally, size: int) -> None:
        """Keep the engine busy and write in order: rows go in batches, texts one by one with ``size`` of them under way."""
        rows = model.spec.kind == "predict"
        running: deque[tuple[list[Line], asyncio.Task[list[dict[str, Any]]]]] = deque()
        progress = Progress(tally)
        sampling = self.parameters.sampling(self.settings.default_temperature)
        try:
            while True:
                while not self.stopped and len(running) < (2 if rows else size):
                    taken = list(islice(lines, size if rows else 1))
                    if not taken:
                        break
                    items = [line.item for line in taken if not line.error]
                    running.append((taken, asyncio.ensure_future(answer_all(model, items, sampling))))
                if not running:
                    return
                taken, task = running.popleft()
                answers = iter(await task)
                found = [
                    {"error": {"message": line.error, "code": "bad_line"}} if line.error else next(answers)
                    for line in taken
                ]
                down = next(
                    (answer["error"] for answer in found if "error" in answer and answer["error"]["code"] in DOWN),
                    None,
                )
                if down:  # not the line's fault: leave it to the next run
                    raise RequestError(503, f"{down['message']} What is answered is kept; run it again.", down["code"])
                tally.failed += sum("error" in answer for answer in found)
                tally.answered += len(found)
                results.write(
                    [{**line.place, **named(model), **answer} for line, answer in zip(taken, found, strict=True)]
                )
                progress.show()
        finally:
            for _, task in running:
                task.cancel()
            progress.end()

    def _report(self, spec: ModelSpec, tally: Tally, seconds: float) -> int:
        """One JSON object on stdout, and the exit code."""
        print(
            json.dumps(
                {
                    "model": spec.name,
                    "version": spec.version,
                    "out": str(self.out),
                    "complete": not self.stopped,
                    "lines": tally.skipped + tally.answered,
                    "answered": tally.answered,
                    "skipped": tally.skipped,
                    "failed": tally.failed,
                    "seconds": round(seconds, 3),
                    "samples_per_s": round(tally.answered / seconds, 1) if seconds else 0.0,
                }
            ),
            flush=True,
        )
        if self.stopped:
            return 128 + self.stopped
        return EXIT_FAILED_LINES if tally.failed else 0


class Results:
    """The output file: what it holds already, and what is added to it."""

    def __init__(self, out: Path, columns: tuple[str, ...], model: str) -> None:
        self._out = out
        self._partial = out.with_name(f"{out.name}.partial")
        self._csv = out.suffix.lower() == ".csv"
        self._columns = ("file", "line", "id", "model", "version", *columns, "error")
        self._model = model
        self._file: BinaryIO | None = None

    def __enter__(self) -> "Results":
        """Open the checkpoint for this run alone. Raises StartError, OSError."""
        self._out.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._partial.open("a+b", buffering=0)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise StartError(f"another run is writing {self._partial}: wait for it, or choose another OUT.") from None
        except OSError:  # some network file systems know no locks
            pass
        return self

    def __exit__(self, *_: object) -> None:
        assert self._file
        self._file.close()

    def finished(self) -> Tally:
        """What a whole output holds."""
        with self._out.open("rb") as file:
            records = [record for record, _ in self._records(file)]
        return Tally(skipped=len(records), failed=sum(bool(record.get("error")) for record in records))

    def resume(self, lines: Iterator[Line]) -> Tally:
        """Skip the lines that are answered, drop what is torn. Raises StartError when the answers are not to these lines."""
        assert self._file
        self._file.seek(0)
        tally = Tally()
        end = 0
        for record, after in self._records(self._file):
            line = next(lines, None)
            place = {name: str(record.get(name) or "") for name in ("file", "line")}
            if line is None or place != {name: str(line.place.get(name, "")) for name in place}:
                raise StartError(f"{self._partial} was begun with another input: remove it to start anew.")
            if f"{record.get('model')}:{record.get('version')}" != self._model:
                raise StartError(
                    f"{self._partial} was begun with {record.get('model')}:{record.get('version')}: remove it to start anew."
                )
            tally.skipped += 1
            tally.failed += bool(record.get("error"))
            end = after
        if not end and self._csv:
            self._file.truncate(0)
            self._append([dict(zip(self._columns, self._columns, strict=True))])
        else:
            self._file.truncate(end)
        return tally

    def write(self, results: list[dict[str, Any]]) -> None:
        """Add whole lines, in one write."""
        if not self._csv:
            assert self._file
            text = "".join(f"{json.dumps(result, ensure_ascii=False, separators=(',', ':'))}\n" for result in results)
            self._put(text.encode("utf-8", "replace"))
            return
        self._append(
            [{**result, "error": result["error"]["message"]} if "error" in result else result for result in results]
        )

    def complete(self) -> None:
        """Make it the output, on disk before it gets its name."""
        assert self._file
        os.fsync(self._file.fileno())
        self._partial.replace(self._out)

    def _append(self, results: list[dict[str, Any]]) -> None:
        text = io.StringIO()
        csv.DictWriter(text, self._columns, restval="", extrasaction="ignore", lineterminator="\n").writerows(results)
        self._put(text.getvalue().encode("utf-8", "replace"))

    def _put(self, data: bytes) -> None:
        assert self._file
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) or 0 :]

    def _records(self, file: BinaryIO) -> Iterator[tuple[dict[str, Any], int]]:
        """Each whole record with the offset after it, up to the first that is not whole."""
        raw = b""
        at = 0
        header = self._csv
        for piece in file:
            raw += piece
            if not raw.endswith(b"\n"):
                return
            if self._csv and raw.count(b'"') % 2:
                continue  # a quoted cell goes on in the next line
            at += len(raw)
            record = self._parse(raw)
            raw = b""
            if record is None:
                return
            if header:
                header = False
                continue
            yield record, at

    def _parse(self, raw: bytes) -> dict[str, Any] | None:
        with suppress(ValueError, csv.Error):
            if not self._csv:
                value = json.loads(raw)
                return value if isinstance(value, dict) else None
            cells = next(csv.reader(io.StringIO(raw.decode(), newline="")))
            return dict(zip(self._columns, cells, strict=True))
        return None


class Progress:
    """A line on stderr: again and again on a screen, now and then in a log."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._screen = sys.stderr.isatty()
        self._start = self._last = time.monotonic()

    def show(self) -> None:
        """When it is time."""
        now = time.monotonic()
        if now - self._last >= (SCREEN_SECONDS if self._screen else PROGRESS_SECONDS):
            self._last = now
            self._print("\r" if self._screen else "", "" if self._screen else "\n")

    def end(self) -> None:
        """The last word."""
        self._print("\r" if self._screen else "", "\n")

    def _print(self, before: str, after: str) -> None:
        tally = self._tally
        seconds = max(time.monotonic() - self._start, 1e-9)
        kept = f", {tally.skipped:,} kept from before" if tally.skipped else ""
        text = f"{tally.answered:,} lines, {tally.failed:,} failed{kept}, {tally.answered / seconds:,.1f} a second"
        print(f"{before}{text}", end=after, file=sys.stderr, flush=True)
