"""The command line: serve, and what is done to the documents from outside."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rag_service.errors import RequestError, StartError
from rag_service.settings import as_markdown, read_settings

DEFAULT_URL = "http://127.0.0.1:8000"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code: 0, 1 refused, 2 not understood."""
    parser = argparse.ArgumentParser(prog="rag-service", description="Answers questions from documents.")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.add_parser("serve", help="run the service (the default)")
    commands.add_parser("settings", help="print the table of settings")
    ingest = commands.add_parser("ingest", help="send files to a running service; their paths are their sources")
    ingest.add_argument("files", nargs="+", type=Path, metavar="FILE")
    ingest.add_argument("--url", default=DEFAULT_URL, help="where the service answers (%(default)s)")
    ingest.add_argument("--root", type=Path, default=Path(), help="the folder that sources are relative to")
    backup = commands.add_parser("backup", help="write all documents into a file")
    backup.add_argument("target", type=Path, metavar="FILE", help="the file; with --every, the folder")
    backup.add_argument("--every", type=float, metavar="SECONDS", help="go on writing one, until SIGTERM")
    backup.add_argument("--keep", type=int, default=7, metavar="N", help="with --every: how many to keep (%(default)s)")
    restore = commands.add_parser("restore", help="put back what a file of backup holds, in place of what is there")
    restore.add_argument("file", type=Path, metavar="FILE")
    evaluate = commands.add_parser("evaluate", help="ask a running service questions whose answers are known")
    evaluate.add_argument("questions", type=Path, metavar="QUESTIONS.yaml")
    evaluate.add_argument("--url", default=DEFAULT_URL, help="where the service answers (%(default)s)")
    evaluate.add_argument("--json", action="store_true", help="figures as JSON")
    evaluate.add_argument("--misses", action="store_true", help="also what was not found or not right")
    given = parser.parse_args(arguments)
    try:
        return _run(given)
    except StartError as error:
        print(f"rag-service: {error}", file=sys.stderr)
    except RequestError as error:
        print(f"rag-service: {error.message}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 1


def _run(given: argparse.Namespace) -> int:
    """Each command imports what it needs: a probe or a backup need no server."""
    match given.command:
        case "settings":
            print(as_markdown())
        case "ingest":
            from rag_service import ingest

            ingest.send(given.files, given.root, given.url)
        case "backup" if given.every is not None:
            from rag_service import backup

            return backup.keep_up(read_settings(), given.target, given.every, given.keep)
        case "backup":
            from rag_service import backup

            print(backup.write(read_settings(), given.target))
        case "restore":
            from rag_service import backup

            print(backup.restore(read_settings(), given.file))
        case "evaluate":
            from rag_service import evaluate

            print(evaluate.evaluate(given.questions, given.url, given.json, given.misses))
        case _:
            from rag_service import server

            return server.serve(read_settings())
    return 0
