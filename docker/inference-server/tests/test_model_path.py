"""MODEL_PATH: the layouts that are accepted, and a sentence with exit code 1 for each that is not."""

import asyncio
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import MODELS, free_port, run
from inference_server.engines import load
from inference_server.engines.base import Sampling
from inference_server.engines.generate import GenerateEngine
from inference_server.errors import ModelRefused
from inference_server.models import find_models
from inference_server.settings import Settings


def ids(path: Path, engine: str = "auto") -> list[str]:
    return [f"{spec.id} {spec.kind} {spec.engine}" for spec in find_models(path, engine)]


def test_a_repository() -> None:
    assert ids(MODELS) == [
        "digits:1 predict onnx",
        "digits:2 predict onnx",
        "embedder:1 embed numpy",
        "tutor:1 generate onnx",
        "tutor:2 generate onnx",
    ]


def test_one_model_with_its_versions() -> None:
    assert ids(MODELS / "digits") == ["digits:1 predict onnx", "digits:2 predict onnx"]


def test_one_version() -> None:
    assert ids(MODELS / "digits" / "2") == ["digits:2 predict onnx"]
    assert ids(MODELS / "tutor" / "1") == ["tutor:1 generate onnx"]


def test_a_folder_of_any_name(tutor: Path, tmp_path: Path) -> None:
    assert ids(Path(shutil.move(tutor, tmp_path / "model"))) == ["model:1 generate onnx"]


def test_the_exporters_own_folder(tutor: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tutor / name, tutor / "onnx" / name)
    assert ids(tutor / "onnx") == ["onnx:1 generate onnx"]
    load(find_models(tutor / "onnx")[0], Settings(slots=1)).close()


def test_safetensors_by_setting() -> None:
    assert ids(MODELS / "tutor", "transformers") == ["tutor:1 generate transformers", "tutor:2 generate transformers"]


def test_versions_are_numbers(digits: Path) -> None:
    (digits / "model.json").write_text(json.dumps({**json.loads((digits / "model.json").read_text()), "version": None}))
    for version in ("10", "9"):
        folder = shutil.copytree(digits, digits.parent / version)
        (folder / "model.json").write_text(
            (digits / "model.json").read_text().replace('"version": null', f'"version": "{version}"')
        )
    shutil.rmtree(digits)
    assert ids(digits.parent) == ["digits:9 predict onnx", "digits:10 predict onnx"]


def cut(path: Path, share: float = 0.5) -> None:
    """Keep the first part of a file, as a copy that was interrupted does."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])


def change(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def cut_and_forget_the_sum(folder: Path) -> None:
    change(folder / "model.json", sha256=None)
    cut(folder / "model.onnx")


Spoil = Callable[[Path], object]
DIGITS: list[tuple[str, Spoil, str]] = [
    (
        "no onnx",
        lambda f: (f / "model.onnx").unlink(),
        "has a model.json and no model.onnx: copy that file beside it",
    ),
    ("no card", lambda f: (f / "model.json").unlink(), "neither a tokenizer.json (text) nor a model.json (classes)"),
    ("empty onnx", lambda f: (f / "model.onnx").write_bytes(b""), "model.onnx is empty: copy the model again"),
    (
        "truncated, sum known",
        lambda f: cut(f / "model.onnx"),
        "is not the file its model.json describes (sha256 differs)",
    ),
    (
        "truncated, no sum",
        cut_and_forget_the_sum,
        "model.onnx can't be loaded: it is truncated, damaged or of a newer kind",
    ),
    (
        "lfs",
        lambda f: (f / "model.onnx").write_text("version https://git-lfs.github.com/spec/v1\n"),
        "is a Git LFS pointer, not the weights",
    ),
    (
        "kind",
        lambda f: change(f / "model.json", kind="cluster"),
        'says kind \'cluster\': this server knows "generate", "predict" and "embed"',
    ),
    ("card cut", lambda f: cut(f / "model.json"), "model.json is not JSON"),
    ("card a list", lambda f: (f / "model.json").write_text("[]"), "model.json has to hold a JSON object"),
    ("name", lambda f: change(f / "model.json", name="../x"), "the name '../x' has to be letters, digits"),
    ("no labels", lambda f: change(f / "model.json", labels=None), "lacks something or has it wrong"),
    ("few labels", lambda f: change(f / "model.json", labels=["a", "b"]), "names 2 labels"),
    ("wrong shape", lambda f: change(f / "model.json", input={"name": "pixels", "shape": [7]}), "does not fit"),
    ("wrong output", lambda f: change(f / "model.json", output={"name": "scores"}), "does not fit"),
]
TUTOR: list[tuple[str, Spoil, str]] = [
    (
        "truncated",
        lambda f: cut(f / "onnx/model.onnx", 0.9),
        "model.onnx can't be loaded: it is truncated, damaged or of a newer kind",
    ),
    ("empty", lambda f: (f / "onnx/model.onnx").write_bytes(b""), "model.onnx is empty"),
    (
        "no config",
        lambda f: (f / "onnx/genai_config.json").unlink(),
        "has no genai_config.json beside it: export the model with",
    ),
    ("config empty", lambda f: (f / "onnx/genai_config.json").write_text("{}"), "lacks the size of the cache"),
    ("tokenizer cut", lambda f: cut(f / "tokenizer.json"), "tokenizer.json can't be read as a tokenizer"),
    ("no template", lambda f: change(f / "tokenizer_config.json", chat_template=None), "has no chat template"),
    (
        "bad template",
        lambda f: change(f / "tokenizer_config.json", chat_template="{% for %}"),
        "the chat template can't be read",
    ),
    (
        "another model",
        lambda f: shutil.copy(MODELS / "digits/2/model.onnx", f / "onnx/model.onnx"),
        "has inputs this engine doesn't know",
    ),
]


def refusal(path: Path, engine: str = "auto") -> str:
    """The sentence with which a path is refused, when it is listed or when it is loaded."""
    with pytest.raises(ModelRefused) as refused:
        for spec in find_models(path, engine):
            load(spec, Settings(slots=2)).close()
    return str(refused.value)


@pytest.mark.parametrize(("spoil", "said"), [case[1:] for case in DIGITS], ids=[case[0] for case in DIGITS])
def test_spoilt_digits(digits: Path, spoil: Spoil, said: str) -> None:
    spoil(digits)
    sentence = refusal(digits)
    assert said in sentence
    assert str(digits) in sentence


@pytest.mark.parametrize(("spoil", "said"), [case[1:] for case in TUTOR], ids=[case[0] for case in TUTOR])
def test_spoilt_tutor(tutor: Path, spoil: Spoil, said: str) -> None:
    spoil(tutor)
    sentence = refusal(tutor)
    assert said in sentence
    assert str(tutor) in sentence


def test_truncated_safetensors(tutor: Path) -> None:
    cut(tutor / "model.safetensors", 0.99)
    assert "is truncated: it has" in refusal(tutor, "transformers")
    cut(tutor / "model.safetensors", 0.0001)
    assert "is truncated or no safetensors file" in refusal(tutor, "transformers")


def test_safetensors_without_onnx(tutor: Path) -> None:
    shutil.rmtree(tutor / "onnx")
    assert ids(tutor) == ["tutor:1 generate transformers"]
    assert "has safetensors and no ONNX file, and ENGINE=onnx" in refusal(tutor, "onnx")


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="torch is installed here")
def test_transformers_where_there_is_no_torch() -> None:
    assert "needs the transformers engine, which comes with the GPU image" in refusal(MODELS / "tutor", "transformers")


def test_transformers_where_there_is_torch() -> None:
    """The same folder by the other engine: the same answer, computed from the safetensors."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")

    async def answer(engine_name: str) -> str:
        engine = load(find_models(MODELS / "tutor", engine_name)[0], Settings(slots=1))
        assert isinstance(engine, GenerateEngine)
        stream = await engine.generate(
            [[{"role": "user", "content": "What is a Docker image?"}]], Sampling(max_tokens=40)
        )
        text = "".join([delta.text async for delta in stream])
        engine.close()
        return text

    by_torch, by_onnx = asyncio.run(answer("transformers")), asyncio.run(answer("onnx"))
    assert by_torch.split()[:3] == by_onnx.split()[:3]  # int4 and float32 may part later


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("llama.gguf", "x", "holds GGUF weights; serve those with Ollama or llama.cpp"),
        ("model.tar.gz", "x", "holds a packed model; unpack it first"),
        ("adapter_config.json", "{}", "holds an adapter without its base model"),
        ("weights.pt", "x", "holds pickled PyTorch weights"),
        ("notes.txt", "x", "holds no model this server knows (found: notes.txt)"),
    ],
)
def test_strangers(tmp_path: Path, name: str, content: str, said: str) -> None:
    (tmp_path / name).write_text(content)
    assert said in refusal(tmp_path)


def test_a_folder_with_other_folders(tmp_path: Path, digits: Path) -> None:
    (digits.parent / "latest").mkdir()
    assert "latest is not a version: name version folders 1, 2, 3" in refusal(tmp_path)
    (digits.parent / "latest").rmdir()
    (tmp_path / "notes").mkdir()
    assert "notes holds no version: expected" in refusal(tmp_path)


def test_two_folders_of_one_name(digits: Path, tmp_path: Path) -> None:
    shutil.copytree(digits, tmp_path / "copy" / "2")
    assert "both say they are digits:2: change one model.json" in refusal(tmp_path)


def test_missing_empty_file(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / ".gitkeep").touch()
    assert f"MODEL_PATH={empty} is empty" in refusal(empty)
    assert f"MODEL_PATH={empty}/no: there is no such folder" in refusal(empty / "no")
    assert "is a file" in refusal(MODELS / "digits" / "samples.json")


@contextmanager
def not_root() -> Iterator[None]:
    """Root may read everything, so the test becomes nobody for a while."""
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(me)


@pytest.mark.parametrize("engine", ["auto", "transformers"])
def test_unreadable(engine: str) -> None:
    # Copied and read once as ourselves: the checkout, and with it a module not imported yet, may lie where nobody may not go.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        copy = Path(shutil.copytree(MODELS / "tutor" / "1", Path(name) / "tutor", copy_function=touch))
        refusal(copy, engine)
        (copy / "onnx/model.onnx").chmod(0)
        (copy / "model.safetensors").chmod(0)
        with not_root():
            assert "can't be read by this user: make it readable (chmod -R a+rX)" in refusal(copy, engine)
        copy.chmod(0)
        with not_root():
            assert "can't be read by this user" in refusal(copy, engine)
        copy.chmod(0o755)


def touch(source: str, target: str) -> str:
    """A copy of the small files only; the large ones become empty (and need not be readable to whom the test is)."""
    path = Path(source)
    Path(target).write_bytes(path.read_bytes() if path.stat().st_size < 1_000_000 else b"")
    return target


@pytest.mark.parametrize("when", ["listed", "sum", "loaded"])
def test_the_process_says_so_and_ends(digits: Path, tutor: Path, when: str) -> None:
    if when == "listed":
        (digits / "model.json").unlink()
    else:
        cut(digits / "model.onnx" if when == "sum" else tutor / "onnx/model.onnx", 0.9)
    spoilt = tutor if when == "loaded" else digits
    ended = run("serve", MODEL_PATH=spoilt, HOST="127.0.0.1", PORT=free_port())
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"inference-server: {spoilt}")
    assert len(ended.stderr.splitlines()) == 1
    assert "Traceback" not in ended.stdout + ended.stderr
