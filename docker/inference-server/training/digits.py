"""Train the three digit classifiers, measure them on the same held-out rows, and export them to ONNX.

    uv run --no-project --with scikit-learn --with skl2onnx --with onnxruntime python training/digits.py [FOLDER]

Data: scikit-learn's digits (1,797 handwritten digits of 8 x 8 pixels, each 0 to 16), which ships with the library. Version 1 is weak on
purpose: a linear model that saw 80 rows. Version 2 is a small neural network that saw every training row. A rollout or an A/B test
between them has a real difference to find. Version 3 goes to ``models-bad/``: the network of version 2, trained on labels that were
mixed up, so that it is fast, sure of itself and wrong about a third of the time: what a rollout has to notice. Accuracy is measured on the exported files, not on the objects they came from.
"""

import hashlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler

SEED = 441
HELD_OUT = 540
SAMPLES = 100
OPSET = 17
MIXED_UP = {3: 8, 8: 9, 9: 3}  # what each label became, as when a column is read one off


def rows() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Training pixels, held-out pixels (rows of 64 float32), training labels, held-out labels; the split never changes."""
    data = load_digits()
    return tuple(
        train_test_split(
            data.data.astype(np.float32),
            data.target,
            test_size=HELD_OUT,
            random_state=SEED,
            stratify=data.target,
        )
    )


def export(pipeline: Any, name: str, example: np.ndarray) -> bytes:
    """The fitted pipeline as ONNX: input ``pixels`` (rows of 64), outputs ``label`` and ``probabilities``."""
    proto = to_onnx(pipeline, example[:1], options={"zipmap": False}, target_opset=OPSET, name=name)
    old = proto.graph.input[0].name
    proto.graph.input[0].name = "pixels"
    for node in proto.graph.node:
        for index, value in enumerate(node.input):
            if value == old:
                node.input[index] = "pixels"
    return bytes(proto.SerializeToString(deterministic=True))


def accuracy(onnx: bytes, pixels: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows that the exported model gets right."""
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    return float((session.run(["label"], {"pixels": pixels})[0] == labels).mean())


def mixed_up(labels: np.ndarray) -> np.ndarray:
    """Labels as a bad labelling job leaves them: every row of three digits has another digit's label."""
    return np.array([MIXED_UP.get(int(label), int(label)) for label in labels])


def card(version: str, what: str, seen: int, onnx: bytes, right: float) -> dict[str, Any]:
    """model.json: what the server needs to serve the file and what a person wants to know about it."""
    return {
        "name": "digits",
        "version": version,
        "kind": "predict",
        "description": what,
        "file": "model.onnx",
        "sha256": hashlib.sha256(onnx).hexdigest(),
        "input": {"name": "pixels", "shape": [64], "min": 0, "max": 16},
        "output": {"name": "probabilities", "scores": "probabilities"},
        "labels": [str(digit) for digit in range(10)],
        "metrics": {"accuracy": round(right, 4), "held_out_rows": HELD_OUT},
        "training": {
            "data": "scikit-learn digits, 1,797 rows",
            "rows": seen,
            "seed": SEED,
            "script": "training/digits.py",
        },
    }


def readme(about: dict[str, Any], size: int) -> str:
    """The model's page for people."""
    return f"""# digits, version {about["version"]}

{about["description"]}

| | |
|---|---|
| task | which digit, 0 to 9, is drawn in 8 x 8 pixels |
| input | rows of 64 numbers, 0 (white) to 16 (black), line by line |
| output | one probability a digit |
| training data | {about["training"]["data"]}; {about["training"]["rows"]} of them seen; seed {about["training"]["seed"]} |
| accuracy | {about["metrics"]["accuracy"]:.1%} of {about["metrics"]["held_out_rows"]} held-out rows, measured on this ONNX file |
| size | {size / 1000:.0f} kB |
| limits | digits drawn, scanned and centred as in that data set; anything else still gets a digit for an answer |

Made by `training/digits.py`, which writes this page too.
"""


def main(models: Path, bad_models: Path) -> None:
    """Train, measure and write ``digits/`` of both folders."""
    seen, held, seen_labels, held_labels = rows()
    few, _, few_labels, _ = train_test_split(seen, seen_labels, train_size=80, random_state=SEED, stratify=seen_labels)
    weak = make_pipeline(MinMaxScaler(), LogisticRegression(C=0.05, max_iter=500))
    good, bad = (
        make_pipeline(MinMaxScaler(), MLPClassifier((64,), alpha=0.01, max_iter=400, random_state=SEED))
        for _ in range(2)
    )
    versions = (
        (
            models,
            "1",
            "A linear model that saw 80 digits: weak on purpose, the one to be replaced.",
            weak,
            few,
            few_labels,
        ),
        (models, "2", "A small neural network that saw every training digit.", good, seen, seen_labels),
        (
            bad_models,
            "3",
            "The network of version 2, trained on labels that were mixed up (3 as 8, 8 as 9, 9 as 3): bad on purpose, for rollouts "
            "that have to notice.",
            bad,
            seen,
            mixed_up(seen_labels),
        ),
    )
    for folder_of_models, version, what, pipeline, pixels, labels in versions:
        pipeline.fit(pixels, labels)
        onnx = export(pipeline, f"digits-{version}", pixels)
        about = card(version, what, len(pixels), onnx, accuracy(onnx, held, held_labels))
        folder = folder_of_models / "digits" / version
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(onnx)
        (folder / "model.json").write_text(json.dumps(about, indent=2) + "\n")
        (folder / "README.md").write_text(readme(about, len(onnx)))
        print(
            f"digits {version}: {about['metrics']['accuracy']:.1%} of {HELD_OUT} held-out rows, {len(onnx) / 1000:.1f} kB"
        )
    lines = [
        json.dumps({"label": str(label), "pixels": [int(value) for value in row]})
        for row, label in zip(held[:SAMPLES], held_labels[:SAMPLES], strict=True)
    ]
    (models / "digits" / "samples.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    warnings.filterwarnings("ignore", category=FutureWarning)
    server = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent.parent
    main(server / "models", server / "models-bad")
