"""Files to a running service."""

from pathlib import Path

import httpx2

from rag_service.errors import StartError

TIMEOUT_SECONDS = 120.0


def send(files: list[Path], root: Path, url: str) -> None:
    """POST each file; its path relative to ``root`` is its source. Raises StartError at the first that is refused."""
    with httpx2.Client(base_url=url, timeout=TIMEOUT_SECONDS, trust_env=False) as client:
        for file in files:
            try:
                source = file.resolve().relative_to(root.resolve()).as_posix()
                text = file.read_text(encoding="utf-8")
                reply = client.post("/documents", json={"source": source, "text": text})
            except UnicodeDecodeError:
                raise StartError(f"{file} is not text in UTF-8: leave it out, or convert it.") from None
            except ValueError:
                raise StartError(f"{file} is not below {root}: set --root to a folder above all files.") from None
            except OSError as error:
                raise StartError(f"{file} can't be read ({error.strerror}): give files that are there.") from None
            except httpx2.HTTPError as error:
                raise StartError(
                    f"{url} gives no answer ({type(error).__name__}): start the service, or set --url."
                ) from None
            if reply.status_code != 200:
                raise StartError(f"{file}: {message(reply)}")
            print(f"{source}: {reply.json()['chunks']} passages")


def message(reply: httpx2.Response) -> str:
    """The sentence in an error of the service, or what else came."""
    try:
        return str(reply.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {reply.status_code}: {reply.text[:200]}"
