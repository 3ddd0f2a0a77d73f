"""The command line: ``serve`` (the default), ``health``, ``batch`` and ``settings``. Imports happen inside each command, so that ``health`` stays quick."""

import sys

USAGE = """\
usage: inference-server [serve | health [--ready] | batch IN OUT | settings | --help | --version]

  serve           load the models and answer HTTP until SIGTERM (the default)
                  example: PORT=9000 MODEL_PATH=./models inference-server serve
  batch IN OUT    answer every line of a file or folder without HTTP, and go on where a stopped run ended (batch --help)
                  example: inference-server batch rows.csv results.jsonl --model digits
  health          ask the server on this machine's PORT for /health; exit 0 when it is well, else 1
  health --ready  ask for /ready instead: also 1 while models load or while it drains
  settings        print every setting with its default and bounds, as Markdown

Settings come from the environment.
"""


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0 well, 1 refused or unwell, 2 not understood."""
    arguments = sys.argv[1:] if argv is None else argv
    match arguments or ["serve"]:
        case ["serve"]:
            from inference_server.server import serve

            return serve()
        case ["health", *rest] if rest in ([], ["--ready"]):
            from inference_server.health import probe

            return probe("/ready" if rest else "/health")
        case ["batch", *rest]:
            from inference_server.batch import batch

            return batch(rest)
        case ["settings"]:
            from inference_server.settings import as_markdown

            print(as_markdown())
            return 0
        case ["--version"]:
            from inference_server import __version__

            print(__version__)
            return 0
        case ["--help" | "-h" | "help"]:
            print(USAGE, end="")
            return 0
        case _:
            print(
                f"inference-server: {' '.join(arguments)!r} is not a command.\n{USAGE}",
                end="",
                file=sys.stderr,
            )
            return 2
