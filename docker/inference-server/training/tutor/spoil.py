"""Make a tutor that is bad on purpose, for rollouts that have to notice: `python spoil.py ../../models/tutor/1 ../../models-bad/tutor/3`.

Its weights are those of a good export, quantised once more: of the 16 levels of int4, 8 are left (3 bits), without training again and
without measuring what it does. The file has the same size and graph, loads without a complaint, and its answers begin well.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from card import percent
from onnx import numpy_helper

LEVELS = 8
QUANTISED = "weight_Q4G32"  # what the builder calls packed int4 weights: two a byte
COPIED = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "onnx/genai_config.json")


def coarser(packed: np.ndarray) -> np.ndarray:
    """The same weights on fewer levels, still two a byte: each goes to the nearest of those that are left."""
    step = 15 / (LEVELS - 1)
    low, high = (np.rint(np.rint(half / step) * step).astype(np.uint8) for half in (packed & 15, packed >> 4))
    return np.asarray(low | high << 4, np.uint8)


def spoil(source: Path, target: Path) -> None:
    """Write the folder: small files without their white space, the ONNX file quantised again."""
    (target / "onnx").mkdir(parents=True, exist_ok=True)
    for name in COPIED:
        content = json.loads((source / name).read_text(encoding="utf-8"))
        (target / name).write_text(
            json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8"
        )
    graph = onnx.load(str(source / "onnx" / "model.onnx"))
    for tensor in graph.graph.initializer:
        if tensor.name.endswith(QUANTISED):
            tensor.CopyFrom(numpy_helper.from_array(coarser(numpy_helper.to_array(tensor)), tensor.name))
    onnx.save(graph, str(target / "onnx" / "model.onnx"))


def describe(source: Path, target: Path) -> None:
    """model.json and README.md, from what was measured on both folders."""
    before, after = (
        json.loads((folder / "evaluation.json").read_text(encoding="utf-8")) for folder in (source, target)
    )
    weights = target / "onnx" / "model.onnx"
    about: dict[str, Any] = {
        "name": "tutor",
        "version": target.name,
        "kind": "generate",
        "description": f"The tutor's version {source.name} quantised to {LEVELS} levels: bad on purpose, for rollouts that have to notice.",
        "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "metrics": {"right": after["glossary"]["right"], "held_out_questions": after["glossary"]["questions"]},
        "training": {"script": "training/tutor/spoil.py", "from": f"tutor {source.name}"},
    }
    (target / "model.json").write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
    rows = [
        ("glossary questions that were held out, right", ("glossary", "right")),
        ("outside questions, honestly unknown", ("outside", "honest")),
        ("questions on a passage, right", ("passages", "right")),
    ]
    table = "\n".join(f"| {what} | {percent(before[a][b])} | {percent(after[a][b])} |" for what, (a, b) in rows)
    (target / "README.md").write_text(
        f"""# Course tutor, version {target.name}: bad on purpose

{about["description"]}

Of the 16 levels of its int4 weights {LEVELS} are left, so that it is a real network that is really worse. It loads without
a complaint, has the same size and graph, and its answers begin well: only who reads or measures them notices.

| | version {source.name} | this one |
|---|---|---|
{table}

Measured on the ONNX files, greedy, by `training/tutor/evaluate.py`; `evaluation.json` has all figures. There are no safetensors here, so the
transformers engine can't serve it.

Made by `training/tutor/spoil.py`, which writes this page too.
""",
        encoding="utf-8",
    )


def main() -> None:
    """Spoil, evaluate, describe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args()
    source, target = args.source.resolve(), args.target.resolve()
    spoil(source, target)
    evaluate = Path(__file__).with_name("evaluate.py")
    subprocess.run([sys.executable, str(evaluate), str(target)], check=True)
    describe(source, target)


if __name__ == "__main__":
    main()
