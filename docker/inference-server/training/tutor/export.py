"""Turn a trained checkpoint into the served folder: `python export.py CHECKPOINT FOLDER` (bf16 weights, tokenizer, int4 ONNX)."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx
from chat import save_tokenizer
from tokenizers import Tokenizer

KEEP = ("config.json", "generation_config.json", "model.safetensors", "training.json")
LIMIT = 8 * 1024 * 1024
OPTIONS = ("accuracy_level=4", "block_size=32", "algo_config=k_quant")


def convert(checkpoint: Path, target: Path) -> None:
    """Run onnxruntime-genai's builder in a scratch folder and bring back one ONNX file and genai_config.json."""
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "made"
        command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-p", "int4", "-e", "cpu", "-c", scratch]
        command += ["-i", str(checkpoint), "-o", str(made)]
        subprocess.run([*command, "--extra_options", *OPTIONS], check=True, capture_output=True)
        graph = onnx.load(str(made / "model.onnx"))  # external data is read in, so that saving embeds it
        scrub(graph)
        target.mkdir(parents=True, exist_ok=True)
        onnx.save(graph, str(target / "model.onnx"))
        settings = json.loads((made / "genai_config.json").read_text(encoding="utf-8"))
        (target / "genai_config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def scrub(graph: onnx.ModelProto) -> None:
    """Remove notes that name the machine: doc strings and metadata of model, graph, nodes and values."""
    graph.doc_string = ""
    del graph.metadata_props[:]
    graph.graph.doc_string = ""
    del graph.graph.metadata_props[:]
    for part in (
        *graph.graph.node,
        *graph.graph.initializer,
        *graph.graph.value_info,
        *graph.graph.input,
        *graph.graph.output,
    ):
        part.doc_string = ""
        del part.metadata_props[:]


def scrub_json(path: Path) -> None:
    """Drop keys that hold a path of the machine."""
    data = json.loads(path.read_text(encoding="utf-8"))
    data.pop("_name_or_path", None)
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Copy, convert, check the size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    for name in KEEP:
        if (args.checkpoint / name).exists():
            shutil.copyfile(args.checkpoint / name, args.folder / name)
    for name in ("config.json", "generation_config.json"):
        scrub_json(args.folder / name)
    save_tokenizer(Tokenizer.from_file(str(args.checkpoint / "tokenizer.json")), args.folder)
    convert(args.checkpoint, args.folder / "onnx")
    size = (args.folder / "onnx" / "model.onnx").stat().st_size
    print(f"model.onnx {size / 1e6:.2f} MB")
    if size > LIMIT:
        sys.exit(f"model.onnx is larger than {LIMIT} bytes: choose a smaller Shape in model.py")


if __name__ == "__main__":
    main()
