"""Train the course tutor from scratch: `python train.py [--minutes M] [--out FOLDER]`. Seeded; prints the loss."""

from __future__ import annotations

import argparse
import copy
import json
import random
import signal
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
import transformers
from chat import CONTEXT, PAD, example_ids, save_tokenizer, train_tokenizer
from corpus import UNKNOWN, Corpus, digest, load
from lessons import PLANS, Lessons, Plan
from model import Average, Batch, Shape, answer_loss, build, label_loss
from tokenizers import Tokenizer
from torch import nn
from transformers import LlamaForCausalLM

SEED = 441
POOL = 512
OPENING = 10
TOKENIZER_PLAN = Plan({"glossary": 0.1, "outside": 0.5, "passage": 0.4}, keywords=0.35, cut=0.0)
SAVE_EVERY = 150
LABEL_WEIGHT = 1.0


def shorten(
    ids: list[int], spoken: list[bool], begin: int, share: float, rng: random.Random
) -> tuple[list[int], list[bool]]:
    """Mostly cut a long last answer after its opening.

    Which answer it is shows in the first words; the rest is recitation, learnt from the answers that stay whole. So the
    same computing time sees almost twice as many questions.
    """
    if len(ids) - begin <= OPENING + 4 or rng.random() > share:
        return ids, spoken
    return ids[: begin + OPENING], spoken[: begin + OPENING]


def batches(lessons: Lessons, tok: Tokenizer, tokens: int, seed: int) -> Iterator[Batch]:
    """Right-padded batches of at most ``tokens`` places.

    Conversations of like length stand together. A conversation weighs as the square root of what the assistant says in
    it: a span of three tokens would otherwise drown among sentences of thirty.
    """
    rng = random.Random(seed)
    stream = iter(lessons)
    while True:
        pool = []
        for _ in range(POOL):
            messages = next(stream)
            ids, spoken = example_ids(tok, messages)
            begin, label = len(spoken) - spoken[::-1].index(False), lessons.label(messages)
            if label >= 0 and rng.random() < lessons.plan.bare:
                ids, spoken = ids[:begin], spoken[:begin]
            else:
                ids, spoken = shorten(ids, spoken, begin, lessons.plan.cut, rng)
            if len(ids) <= CONTEXT:
                weight = max(1, sum(spoken)) ** -0.5
                pool.append((ids, [weight if s else 0.0 for s in spoken], (begin - 1, label)))
        pool.sort(key=lambda p: len(p[0]))
        groups: list[list[tuple[list[int], list[float], tuple[int, int]]]] = [[]]
        for item in pool:
            if groups[-1] and (len(groups[-1]) + 1) * len(item[0]) > tokens:
                groups.append([])
            groups[-1].append(item)
        rng.shuffle(groups)
        for group in groups:
            width = max(len(i) for i, _, _ in group)
            yield Batch(
                torch.tensor([i + [PAD] * (width - len(i)) for i, _, _ in group]),
                torch.tensor([w + [0.0] * (width - len(w)) for _, w, _ in group]),
                torch.tensor([label for _, _, label in group]),
            )


def tokenizer_texts(corpus: Corpus) -> Iterator[str]:
    """What the BPE is learnt from: the written text, several times for answers, and some made-up passages."""
    for e in corpus.entries:
        yield from (*e.questions, e.answer, e.answer)
    yield from [UNKNOWN] * 20
    yield from Lessons(corpus, SEED + 1, TOKENIZER_PLAN).sample_texts(3000)


def save(net: LlamaForCausalLM, folder: Path, record: dict[str, object]) -> None:
    """Write bf16 weights and what is known of the run; the network itself keeps training in float32."""
    copy.deepcopy(net).to(torch.bfloat16).save_pretrained(folder)
    (folder / "training.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Parse, train, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint and tokenizer")
    parser.add_argument("--begin", type=Path, help="go on from this earlier run's checkpoint and tokenizer")
    parser.add_argument("--steps", type=int, default=1700)
    parser.add_argument("--tokens", type=int, default=4096, help="tokens a batch, at most")
    parser.add_argument("--lr", type=float, default=3e-3, help="of Muon; AdamW takes two thirds of it")
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    # On a shared machine `kill -USR1 PID` changes between one and two threads.
    signal.signal(signal.SIGUSR1, lambda *_: torch.set_num_threads(3 - min(2, torch.get_num_threads())))
    args.out.mkdir(parents=True, exist_ok=True)
    corpus, data = load(), digest()
    runs: list[dict[str, object]] = []
    if args.begin:
        runs = json.loads((args.begin / "training.json").read_text(encoding="utf-8"))["runs"]
        tok = Tokenizer.from_file(str(args.begin / "tokenizer.json"))
        net = LlamaForCausalLM.from_pretrained(args.begin, dtype=torch.float32).train()
    else:
        torch.manual_seed(SEED)
        tok = train_tokenizer(tokenizer_texts(corpus), Shape().vocab)
        net = build(Shape())
    plan = PLANS[min(len(runs), len(PLANS) - 1)]
    seed = SEED + len(runs)  # another run draws other conversations
    lessons = Lessons(corpus, seed, plan)
    save_tokenizer(tok, args.out)
    torch.manual_seed(seed)
    labels = nn.Linear(net.config.hidden_size, lessons.labels)
    average = Average(net)
    matrices = [p for n, p in net.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in net.named_parameters() if p.ndim != 2 or "embed" in n] + list(labels.parameters())
    opts: list[torch.optim.Optimizer] = [
        torch.optim.Muon(matrices, lr=args.lr, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=args.lr * 2 / 3, betas=(0.9, 0.95), weight_decay=0.01),
    ]
    base = [g["lr"] for o in opts for g in o.param_groups]
    begin = f"--begin CHECKPOINT-{len(runs)} " if runs else ""
    options = f"--steps {args.steps} --tokens {args.tokens} --lr {args.lr}"
    run: dict[str, object] = {
        "command": f"python train.py --out CHECKPOINT-{len(runs) + 1} {begin}{options}",
        "seed": seed,
        "planned_steps": args.steps,
        "plan": asdict(plan),
        "data_sha256": data,
    }
    versions = {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__}
    print(f"{len(corpus.entries)} entries, data {data[:12]}", flush=True)
    started, seen, smooth, guess = time.monotonic(), 0, 0.0, 0.0
    losses: list[tuple[int, float]] = []
    source = batches(lessons, tok, args.tokens, seed)
    for step in range(1, args.steps + 1):
        factor = min(1.0, step / 50) * min(1.0, (args.steps - step) / (0.7 * args.steps) + 0.01)
        for lr, group in zip(base, [g for o in opts for g in o.param_groups], strict=True):
            group["lr"] = lr * factor
        batch = next(source)
        with torch.autocast("cpu", torch.bfloat16):
            hidden = net.model(input_ids=batch.ids).last_hidden_state
            said, told = answer_loss(net, hidden, batch), label_loss(labels, hidden, batch)
        (said + told * LABEL_WEIGHT).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        for o in opts:
            o.step()
            o.zero_grad(set_to_none=True)
        average.update(net, step)
        seen += batch.ids.numel()
        keep = min(0.98, 1 - 1 / step)  # a plain mean at first
        if said:  # a batch of bare questions says nothing
            smooth = keep * smooth + (1 - keep) * said.item()
        if told:
            guess = keep * guess + (1 - keep) * told.item()
        if step % 50 == 0 or step == args.steps:
            rate = seen / (time.monotonic() - started)
            losses.append((step, round(smooth, 4)))
            print(
                f"step {step:4d}  loss {smooth:.4f}  labels {guess:.4f}  {seen / 1e6:.1f} M tokens  {rate:,.0f} tokens/s",
                flush=True,
            )
        if step % SAVE_EVERY == 0 or step == args.steps:
            run |= {"steps": step, "tokens": seen, "loss": round(smooth, 4), "losses": losses}
            save(average.net, args.out, {"seed": SEED, "versions": versions, "data_sha256": data, "runs": [*runs, run]})


if __name__ == "__main__":
    main()
