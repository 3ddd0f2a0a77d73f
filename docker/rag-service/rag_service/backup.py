"""Backup and restore of the collection: documents, vectors and metadata as JSON lines, gzipped, under a header.

The file is Chroma's contents and not its storage: it goes into any Chroma of any version, on any processor.
"""

import asyncio
import gzip
import json
import logging
import os
import re
import signal
import threading
import time
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from rag_service import logs
from rag_service.chroma import Chroma, Row
from rag_service.errors import RequestError, StartError, nothing_ingested
from rag_service.health import NOTHING_TO_COPY
from rag_service.inference import Inference, size_of
from rag_service.metrics import Metrics
from rag_service.settings import Settings
from rag_service.words import FIELDS

log = logging.getLogger("rag_service")
FORMAT = "rag-service backup 1"
TRIES = 3
T = TypeVar("T")


def write(settings: Settings, file: Path) -> str:
    """Write the collection into a file, which is whole or as it was before; return a sentence.

    Raises:
        RequestError: there is nothing to write, or Chroma gives no answer.
        StartError: the file can't be written.
    """
    return _with_services(settings, lambda chroma, _: _write(chroma, settings, file))


def restore(settings: Settings, file: Path) -> str:
    """Put a backup in the place of the collection; return a sentence. Until the last moment the former one stays.

    Raises:
        RequestError: Chroma or the inference server gives no answer.
        StartError: the file is damaged, or is of another embedder; nothing was changed.
    """
    header, rows = read(file)
    return _with_services(settings, lambda chroma, inference: _restore(chroma, inference, settings, header, rows))


def keep_up(settings: Settings, folder: Path, seconds: float, keep: int) -> int:
    """Write a backup into a folder every so many seconds and keep the newest ones, until SIGTERM; return the exit code."""
    if seconds < 1 or keep < 1:
        raise StartError("--every and --keep have to be at least 1.")
    if not folder.is_dir():
        raise StartError(f"{folder} is no folder: make it first, or mount one there.")
    logs.set_up(settings.log_level)
    over = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: over.set())
    name = re.compile(re.escape(settings.collection) + r"-\d{8}T\d{6}Z\.jsonl\.gz")
    while not over.is_set():
        file = folder / f"{settings.collection}-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}.jsonl.gz"
        try:
            log.info("backup", extra={"fields": {"file": file.name, "result": _round(settings, file)}})
            for old in sorted(each for each in folder.iterdir() if name.fullmatch(each.name))[:-keep]:
                old.unlink()
        except (StartError, RequestError, OSError) as error:  # the next one may go well
            log.error("no backup", extra={"fields": {"file": file.name, "reason": str(error)}})
        over.wait(seconds)
    return 0


def _round(settings: Settings, file: Path) -> str:
    """Write a backup, or where there are no documents a mark that says so to the probe; return a sentence."""
    mark = file.with_name(NOTHING_TO_COPY)
    try:
        said = write(settings, file)
        mark.unlink(missing_ok=True)
    except RequestError as error:
        if error.code != "nothing_ingested":
            raise
        mark.touch()
        said = error.message
    return said


def read(file: Path) -> tuple[dict[str, Any], list[Row]]:
    """A backup's header and rows, all of them looked at. Raises StartError."""
    try:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            header, *bodies = (json.loads(line) for line in lines)
        if header["format"] != FORMAT:
            raise ValueError(f"its format is {header['format']!r}, not {FORMAT!r}")
        rows = [Row(**body) for body in bodies]
        if len(rows) != header["count"]:
            raise ValueError(f"it has {len(rows)} passages where its header says {header['count']}")
        for row in rows:
            if len(row.vector or []) != header["dimension"] or not row.metadata.keys() >= FIELDS:
                raise ValueError(f"its passage {row.id!r} is incomplete")
    except FileNotFoundError:
        raise StartError(f"{file} is not there: give a file that `backup` wrote.") from None
    except (OSError, EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        reason = str(error) or type(error).__name__
        raise StartError(
            f"{file} can't be restored ({reason[:300]}): give another backup. Nothing was changed."
        ) from None
    return header, rows


async def _write(chroma: Chroma, settings: Settings, file: Path) -> str:
    for _ in range(TRIES):
        collection = await chroma.find()
        if collection is None or collection.dimension is None:
            raise nothing_ingested()
        rows = [row async for row in chroma.rows(collection, vectors=True) if row.metadata.keys() >= FIELDS]
        after = await chroma.find()
        if after and after.version == collection.version:
            break
    else:
        raise StartError("the documents changed all the time while they were read: try again when less is written.")
    header = {
        "format": FORMAT,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "chroma": await chroma.server_version(),
        "collection": collection.name,
        "embeddings_model": collection.metadata.get("embeddings_model", settings.embeddings_model),
        "dimension": collection.dimension,
        "count": len(rows),
    }
    partial = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as raw:
            with gzip.open(raw, "wt", encoding="utf-8") as lines:
                for each in (header, *map(_body, rows)):
                    lines.write(json.dumps(each, ensure_ascii=False) + "\n")
            raw.flush()
            os.fsync(raw.fileno())
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise StartError(
            f"{file} can't be written ({error.strerror}): give a place with room that this user may write to."
        ) from None
    return f"{file}: {len(rows)} passages of {len({row.metadata['source'] for row in rows})} documents"


async def _restore(
    chroma: Chroma, inference: Inference, settings: Settings, header: dict[str, Any], rows: list[Row]
) -> str:
    size = size_of(await inference.embed(["How large are its vectors?"]))
    if size != header["dimension"] or header["embeddings_model"] != settings.embeddings_model:
        raise StartError(
            f"the backup has vectors of {header['dimension']} numbers by {header['embeddings_model']!r}, and the embedder "
            f"{settings.embeddings_model!r} gives {size}: set EMBEDDINGS_MODEL to the former. Nothing was changed."
        )
    # Beside the former, then in its place by two renames: whatever fails before loses nothing.
    name, new, old = settings.collection, f"{settings.collection}.restoring", f"{settings.collection}.replaced"
    await chroma.drop(new)
    made = await chroma.ensure(new)
    await chroma.upsert(made, rows)
    if await chroma.count(made) != len(rows):
        raise StartError("Chroma did not keep all passages: look at its log and its disk. Nothing was changed.")
    former = await chroma.find()
    if former:
        await chroma.drop(old)
        await chroma.rename(former, old)
    try:
        await chroma.rename(made, name)
    except RequestError:
        if former:
            await chroma.rename(former, name)
        raise
    await chroma.drop(old)
    return f"{name}: {len(rows)} passages of {len({row.metadata['source'] for row in rows})} documents"


def _body(row: Row) -> dict[str, Any]:
    return {name: value for name, value in asdict(row).items() if name != "distance"}


def _with_services(settings: Settings, work: Callable[[Chroma, Inference], Awaitable[T]]) -> T:
    async def run() -> T:
        up = Metrics().dependency_up
        chroma = Chroma(settings, up.labels("chroma"))
        inference = Inference(settings, up.labels("inference"))
        try:
            return await work(chroma, inference)
        finally:
            await chroma.close()
            await inference.close()

    return asyncio.run(run())
