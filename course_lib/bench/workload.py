"""What every server is asked in `course bench serve`: the same prompts, as bodies in each server's own shape."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from tokenizers import Tokenizer

from course_lib.settings import CHECKOUT

SERVER = CHECKOUT / "docker" / "inference-server"
PROMPT_TOKENS = (24, 40)
NEW_TOKENS = 64
MIXED_TOKENS = (8, 256)
PROMPTS = 4096  # more than a run of requests, so that no server meets one again in its caches
SEED = 441

#: (prompt, tokens wanted) to the body that asks for them.
Text = tuple[str, int]

_WORDS = """
    what why how when does is a the an of in for with without after before container image layer tag digest registry
    volume network port probe endpoint model version batch latency throughput request token prompt cache rollout
    replica pod service node cluster deployment canary traffic weight alarm metric log trace secret role policy
    quota cost region queue timeout retry memory processor limit health ready drain signal restart build cached
    explain compare describe name two three reasons steps signs between and or not slow fast small large
""".split()  # noqa: SIM905 (words read better than a list of them)


def repository(folder: Path) -> Path:
    """A model repository on the committed weights whose texts never end early: end of text is a token that no model writes.

    So every server computes exactly the tokens it is asked for. The tutor's files lie as our server wants them, and once more
    all in one folder, `flat`, as onnxruntime-genai wants them.
    """
    from_ = newest(SERVER / "models" / "tutor")
    text = folder / "models" / "tutor" / from_.name
    flat = folder / "flat"
    shutil.copytree(from_, text, ignore=shutil.ignore_patterns("*.safetensors", "*.md"))
    shutil.copytree(newest(SERVER / "models" / "digits"), folder / "models" / "digits" / "1")
    config = json.loads((text / "onnx" / "genai_config.json").read_text())
    tokenizer = json.loads((text / "tokenizer_config.json").read_text())
    config["model"]["eos_token_id"] = config["model"]["bos_token_id"]
    tokenizer["eos_token"] = tokenizer["bos_token"]
    (text / "onnx" / "genai_config.json").write_text(json.dumps(config))
    (text / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    shutil.copytree(text / "onnx", flat)
    for file in text.glob("*.json"):
        shutil.copy(file, flat)
    return folder


def newest(model: Path) -> Path:
    """The highest version of a model."""
    return max((path for path in model.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))


def texts(tutor: Path, tokens: Callable[[random.Random], int]) -> list[Text]:
    """Prompts of 24 to 40 tokens, template included, no two alike, with the length of each answer; the same at every call."""
    chance = random.Random(SEED)
    tokenizer = Tokenizer.from_file(str(tutor / "tokenizer.json"))
    settings = json.loads((tutor / "tokenizer_config.json").read_text())
    template = jinja2.Template(settings["chat_template"], trim_blocks=True, lstrip_blocks=True)
    found: dict[str, int] = {}
    while len(found) < PROMPTS:
        words = [chance.choice(_WORDS) for _ in range(chance.randint(12, 30))]
        prompt = " ".join(words).capitalize() + "?"
        chat = template.render(
            messages=[{"role": "user", "content": prompt}], add_generation_prompt=True, bos_token=settings["bos_token"]
        )
        size = len(tokenizer.encode(chat, add_special_tokens=False).ids)
        if PROMPT_TOKENS[0] <= size <= PROMPT_TOKENS[1]:
            found[prompt] = tokens(chance)
    return list(found.items())


def same_length(_: random.Random) -> int:
    """Every answer has 64 tokens."""
    return NEW_TOKENS


def mixed_lengths(chance: random.Random) -> int:
    """Answers of 8 to 256 tokens, each length as likely as another."""
    return chance.randint(*MIXED_TOKENS)


def rows() -> list[list[float]]:
    """Digits that the classifier has not seen."""
    samples = json.loads((SERVER / "models" / "digits" / "samples.json").read_text())
    return [sample["pixels"] for sample in samples]


def write(file: Path, bodies: Sequence[Any]) -> Path:
    """One body a line."""
    file.write_text("".join(json.dumps(body) + "\n" for body in bodies))
    return file
