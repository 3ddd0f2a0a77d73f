"""Write the model card, README.md, from what was measured: `python card.py FOLDER`."""

from __future__ import annotations

import argparse
import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

from corpus import UNKNOWN, load

FROM_SCRATCH = "From scratch."
FROM_BEFORE = "The last run goes on from version {before}, whose folder it begins from, with many more questions."
CHANGED = " They made this version at revision {revision}; the code and the text have changed since."
LABELS = ", and on which entry is asked for, by a head that is left out of the saved model"
COUNTS = " with {questions:,} training questions, {outside:,} outside questions and {readings} passage questions"


def percent(value: float) -> str:
    """A share as text, one decimal."""
    return f"{100 * value:.1f} %"


def parameters(folder: Path) -> int:
    """Number of weights, from the header of model.safetensors (its first eight bytes are the header's length)."""
    with (folder / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return sum(math.prod(v["shape"]) for k, v in header.items() if k != "__metadata__")


def main() -> None:
    """Read the folder's figures and write its README.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    data: dict[str, dict[str, Any]] = {
        n: json.loads((folder / f"{n}.json").read_text(encoding="utf-8")) for n in ("evaluation", "training", "config")
    }
    e, t, corpus = data["evaluation"], data["training"], load()
    g, o, p = e["glossary"], e["outside"], e["passages"]
    lengths = [len(r.passage.split()) for r in corpus.readings_train]
    row = "| {n} | {r[seed]} | {r[steps]} | {m:.1f} | {r[loss]} |"
    text = (
        (Path(__file__).parent / "card_template.md")
        .read_text(encoding="utf-8")
        .format(
            e=e,
            t=t,
            g=g,
            o=o,
            p=p,
            unknown=UNKNOWN,
            context=data["config"]["max_position_embeddings"],
            parameters=f"{parameters(folder) / 1e6:.1f}",
            g_right=percent(g["right"]),
            g_unknown=percent(g["wrongly_unknown"]),
            o_honest=percent(o["honest"]),
            o_kinds=", ".join(f"{kind} {percent(v['honest'])}" for kind, v in o["by_kind"].items()),
            p_right=percent(p["right"]),
            p_exact=percent(p["exact"]),
            p_in=percent(p["answer_is_in_passage"]),
            p_lacks=percent(p["honest_when_the_passage_lacks_it"]),
            onnx_mb=f"{(folder / 'onnx' / 'model.onnx').stat().st_size / 1e6:.1f}",
            runs="\n".join(row.format(n=n, r=r, m=r["tokens"] / 1e6) for n, r in enumerate(t["runs"], 1)),
            last=len(t["runs"]),
            number=folder.name,
            origin=FROM_SCRATCH if len(t["runs"]) == 1 else FROM_BEFORE.format(before=int(folder.name) - 1),
            labels=LABELS if "bare" in t["runs"][-1].get("plan", {}) else "",
            now="" if e["trained_on_this_data"] else "; more was written since",
            counts=COUNTS.format(
                questions=sum(len(x.questions) for x in corpus.entries),
                outside=sum(map(len, corpus.outside_train.values())),
                readings=len(corpus.readings_train),
            )
            if e["trained_on_this_data"]
            else "",
            passage_words=round(sum(lengths) / len(lengths)),
            command=t["runs"][-1]["command"].replace(
                f"--begin CHECKPOINT-{len(t['runs']) - 1}", f"--begin ../../models/tutor/{int(folder.name) - 1}"
            ),
            changed=CHANGED.format(revision=t["revision"]) if "revision" in t else "",
            torch=t["versions"]["torch"],
            transformers=version("transformers"),
        )
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
