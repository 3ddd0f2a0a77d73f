"""MODEL_PATH is a contract: which folders are accepted, and one sentence for each that is not.

Accepted are a repository ``<name>/<version>/``, one model's folder of versions ``<version>/``, or one version's folder:

* text, ONNX: ``onnx/model.onnx`` or ``model.onnx`` with ``tokenizer.json`` and ``genai_config.json``
* text, Hugging Face: ``config.json``, ``*.safetensors``, ``tokenizer.json`` (needs the transformers engine)
* classes, ONNX: ``model.onnx`` with a ``model.json`` that says ``"kind": "predict"``
* vectors, NumPy: ``model.npz`` with a ``model.json`` that says ``"kind": "embed"``

Only names and small files are read here; the engines find out whether the weights themselves are whole.
"""

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

from inference_server.errors import ModelRefused

Kind = Literal["generate", "predict", "embed"]
AnswerKind = Literal["generate", "predict"]  # what texts and rows are sent to; embeddings have a contract of their own
HELP = "It can be a model's folder, or a folder of <name>/<version>/ folders."
KNOWN_STRANGERS = {
    "*.gguf": "GGUF weights; serve those with Ollama or llama.cpp",
    "*.tar.gz": "a packed model; unpack it first",
    "adapter_config.json": "an adapter without its base model; merge it into the base model first",
    "pytorch_model*.bin": "pickled PyTorch weights; save the model again as safetensors",
    "*.pt": "pickled PyTorch weights; save the model again as safetensors",
    "*.pth": "pickled PyTorch weights; save the model again as safetensors",
}


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One version of one model, ready to be loaded by an engine: a folder, or, with the engine "openai", a model on another server."""

    name: str
    version: str
    kind: Kind
    engine: Literal["onnx", "transformers", "numpy", "openai"]
    folder: Path
    weights: Path
    card: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """``name:version``, as an image's name and tag."""
        return f"{self.name}:{self.version}"

    @property
    def created(self) -> int:
        """When it was made, in Unix seconds: its folder, or what its server upstream says."""
        return int(self.card["created"] if self.engine == "openai" else self.folder.stat().st_mtime)


Refused = dict[Path, ModelRefused]


def find_models(
    path: Path, engine: str = "auto", refused: Refused | None = None, upstream: Iterable[ModelSpec] = ()
) -> list[ModelSpec]:
    """Every model version under ``path``, sorted by name and version. Raises ModelRefused.

    With ``refused``, a version that can't be had does not hide the others: it goes in there, by its folder. With the engine "openai"
    the text models in folders are passed over; those of ``upstream`` take their place.
    """
    try:
        if not path.exists():
            raise ModelRefused(f"MODEL_PATH={path}: there is no such folder. {HELP}")
        if not path.is_dir():
            raise ModelRefused(f"MODEL_PATH={path} is a file. {HELP}")
        if not any(_visible(path)):
            raise ModelRefused(f"MODEL_PATH={path} is empty. {HELP} Was a volume mounted over it?")
        found = [*upstream, *(spec for spec in _walk(path, engine, refused) if spec.engine != "openai")]
    except PermissionError as error:
        raise unreadable(path, error) from None
    seen: dict[str, ModelSpec] = {}
    for spec in found:
        first = seen.setdefault(spec.id, spec)
        if first is not spec:
            other = first.card["upstream"] if first.engine == "openai" else first.folder
            twice = ModelRefused(f"{other} and {spec.folder} both say they are {spec.id}: change one model.json.")
            if refused is None:
                raise twice
            refused[spec.folder] = twice
    return sorted(seen.values(), key=lambda spec: (spec.name, version_key(spec.version)))


def version_key(version: str) -> tuple[int, str]:
    """Sorts versions as numbers where they are numbers, so that 10 comes after 9."""
    return (int(version), "") if version.isdigit() else (-1, version)


def _walk(path: Path, engine: str, refused: Refused | None) -> Iterator[ModelSpec]:
    """The three accepted layouts, from the most direct to the widest."""
    folders = [child for child in _visible(path) if child.is_dir()]
    if _looks_like_model(path):
        name, version = (path.parent.name, path.name) if path.name.isdigit() else (path.resolve().name, "1")
        yield _read(path, name, version, engine)
    elif folders and all(child.name.isdigit() for child in folders):
        yield from _versions(path, path.resolve().name, engine, refused)
    elif any(grandchild.is_dir() and grandchild.name.isdigit() for child in folders for grandchild in _visible(child)):
        for child in folders:
            yield from _versions(child, child.name, engine, refused)
    else:
        raise ModelRefused(_stranger(path))


def _versions(folder: Path, name: str, engine: str, refused: Refused | None) -> Iterator[ModelSpec]:
    """The versions of one model; each folder in it has to be one."""
    folders = [child for child in _visible(folder) if child.is_dir()]
    for child in folders or [folder]:
        try:
            spec = _version(child, name, engine) if folders else _none_in(folder)
        except (ModelRefused, OSError) as error:
            if refused is None:
                raise
            refused[child] = error if isinstance(error, ModelRefused) else vanished(child, error)
        else:
            yield spec


def _none_in(folder: Path) -> NoReturn:
    raise ModelRefused(f"{folder} holds no version: expected {folder}/1/ with the model in it.")


def _version(folder: Path, name: str, engine: str) -> ModelSpec:
    if not folder.name.isdigit():
        raise ModelRefused(f"{folder} is not a version: name version folders 1, 2, 3, or move it elsewhere.")
    return _read(folder, name, folder.name, engine)


def _visible(folder: Path) -> list[Path]:
    """What a person put there: no dot files, no lost+found of a mounted disk."""
    return sorted(child for child in folder.iterdir() if child.name[0] not in "._" and child.name != "lost+found")


def _looks_like_model(folder: Path) -> bool:
    """Whether anything in this folder belongs to one model."""
    names = (
        "model.json",
        "model.onnx",
        "onnx/model.onnx",
        "config.json",
        "tokenizer.json",
        "genai_config.json",
    )
    return any((folder / name).exists() for name in names) or any(folder.glob("*.safetensors"))


def _read(folder: Path, name: str, version: str, engine: str) -> ModelSpec:
    """One version's folder as a spec, or the reason why not."""
    card = read_json(folder / "model.json") if (folder / "model.json").exists() else {}
    name, version = str(card.get("name", name)), str(card.get("version", version))
    for word, value in (("name", name), ("version", version)):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
            raise ModelRefused(
                f"{folder}: the {word} {value!r} has to be letters, digits, dots, dashes or underscores."
            )
    onnx = next((path for path in (folder / "onnx/model.onnx", folder / "model.onnx") if path.exists()), None)
    kind = card.get("kind", "generate" if (folder / "tokenizer.json").exists() or not onnx else None)
    if kind is None:
        raise ModelRefused(
            f"{folder} has a model.onnx and neither a tokenizer.json (text) nor a model.json (classes): add the one that belongs to it."
        )
    if kind not in ("generate", "predict", "embed"):
        raise ModelRefused(
            f'{folder / "model.json"} says kind {kind!r}: this server knows "generate", "predict" and "embed".'
        )
    if kind != "generate":
        weights = folder / str(card.get("file", "model.onnx" if kind == "predict" else "model.npz"))
        if not weights.is_file():
            raise ModelRefused(f"{folder} has a model.json and no {weights.name}: copy that file beside it.")
        return ModelSpec(name, version, kind, "onnx" if kind == "predict" else "numpy", folder, weights, card)
    if engine == "openai":
        return ModelSpec(name, version, kind, "openai", folder, folder, card)  # never loaded, so it needs no weights
    return _read_text_model(folder, name, version, engine, onnx, card)


Stamp = dict[str, tuple[int, int, int]]


def stamp(spec: ModelSpec) -> Stamp:
    """Inode, size and time of change of each file of a version: cheap to ask, and different when anything was replaced.

    Links are followed, so that the swap of a link is a change too. Raises ModelRefused when the folder can't be read. A model upstream
    has no files, so it never changes here.
    """
    if spec.engine == "openai":
        return {}
    folders = {spec.folder, spec.weights if spec.weights.is_dir() else spec.weights.parent}
    try:
        files = [path for folder in sorted(folders) for path in _visible(folder) if path.is_file()]
        found = {path: path.stat() for path in files}
    except OSError as error:
        raise vanished(spec.folder, error) from None
    return {str(path): (at.st_ino, at.st_size, at.st_mtime_ns) for path, at in found.items()}


def _read_text_model(
    folder: Path, name: str, version: str, engine: str, onnx: Path | None, card: dict[str, Any]
) -> ModelSpec:
    """A folder with a tokenizer: ONNX where it has that and the setting allows it, else safetensors."""
    if not (folder / "tokenizer.json").exists():
        raise ModelRefused(_stranger(folder))
    if onnx and engine in ("auto", "onnx"):
        if not (onnx.parent / "genai_config.json").exists():
            raise ModelRefused(
                f"{onnx} has no genai_config.json beside it: export the model with `python -m onnxruntime_genai.models.builder`."
            )
        return ModelSpec(name, version, "generate", "onnx", folder, onnx, card)
    tensors = sorted(folder.glob("*.safetensors"))
    if not tensors or not (folder / "config.json").exists():
        wanted = "model.onnx" if engine == "onnx" else "config.json with *.safetensors"
        raise ModelRefused(
            f"{folder} has a tokenizer and no {wanted} (ENGINE={engine}): add the weights, or set ENGINE=auto."
        )
    if engine == "onnx":
        raise ModelRefused(
            f"{folder} has safetensors and no ONNX file, and ENGINE=onnx: use ENGINE=transformers, or export it with "
            "`python -m onnxruntime_genai.models.builder`."
        )
    for path in tensors:
        check_safetensors(path)
    return ModelSpec(name, version, "generate", "transformers", folder, folder, card)


def _stranger(folder: Path) -> str:
    """The sentence for a folder that is no model: names what it is, if that is known, else what lies in it."""
    for pattern, what in KNOWN_STRANGERS.items():
        if next(folder.glob(pattern), None):
            return f"{folder} holds {what}."
    names = [child.name for child in _visible(folder)]
    listed = ", ".join(names[:5]) + (" …" if len(names) > 5 else "")
    return f"{folder} holds no model this server knows (found: {listed or 'nothing'}). {HELP} README.md lists what it needs."


def unreadable(path: Path, error: PermissionError) -> ModelRefused:
    """The refusal of what this user may not read: the usual trouble with mounted folders."""
    return ModelRefused(f"{path}: {error.filename} can't be read by this user: make it readable (chmod -R a+rX).")


def vanished(path: Path, error: OSError) -> ModelRefused:
    """The refusal of what changes or disappears under the reader's hands."""
    if isinstance(error, PermissionError):
        return unreadable(path, error)
    return ModelRefused(f"{path} can't be read ({error.strerror or error}): copy it elsewhere first, then mv it here.")


def read_json(path: Path) -> dict[str, Any]:
    """A small JSON object from a model's folder. Raises ModelRefused."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelRefused(f"{path} is missing: copy the model's folder again, whole.") from None
    except (ValueError, RecursionError) as error:
        raise ModelRefused(f"{path} is not JSON ({error}): copy it again or correct it.") from None
    if not isinstance(value, dict):
        raise ModelRefused(f"{path} has to hold a JSON object.")
    return value


def check_whole(path: Path) -> None:
    """Refuse what stands in for a file: nothing at all, or a Git LFS pointer."""
    with path.open("rb") as file:
        head = file.read(64)
    if not head:
        raise ModelRefused(f"{path} is empty: copy the model again.")
    if head.startswith(b"version https://git-lfs"):
        raise ModelRefused(f"{path} is a Git LFS pointer, not the weights: run `git lfs pull` where it was cloned.")


def check_safetensors(path: Path) -> None:
    """Compare a safetensors file's length with its own table; the format: 8 bytes length, JSON table, data."""
    check_whole(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > size - 8:
            raise ModelRefused(f"{path} is truncated or no safetensors file: copy it again.")
        try:
            table = json.loads(file.read(length))
            end = max(
                (entry["data_offsets"][1] for name, entry in table.items() if name != "__metadata__"),
                default=0,
            )
        except (ValueError, KeyError, TypeError, AttributeError, IndexError):
            raise ModelRefused(f"{path} is damaged (its table can't be read): copy it again.") from None
    if size != 8 + length + end:
        raise ModelRefused(
            f"{path} is truncated: it has {size:,} bytes and its table promises {8 + length + end:,}. Copy it again."
        )
