"""Tokeniser and chat template: the byte-level BPE, its special tokens, and how a conversation becomes token ids."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from jinja2 import Template
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

SPECIALS = ("<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")
PAD, BOS, END, SYSTEM, USER, ASSISTANT = range(len(SPECIALS))
CONTEXT = 1024
IGNORE = -100
CHAT_TEMPLATE = (
    "<|bos|>{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] | trim }}<|end|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
_TEMPLATE = Template(CHAT_TEMPLATE)
Message = dict[str, str]


def train_tokenizer(texts: Iterable[str], vocab: int) -> Tokenizer:
    """Train the BPE.

    Every turn starts with a space and digits stand alone, so that a word or number has the same tokens wherever it
    occurs: copying from a passage is then copying of ids.
    """
    tok = Tokenizer(models.BPE())
    tok.normalizer = normalizers.Prepend(" ")
    tok.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tok.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[AddedToken(s, special=True, normalized=False) for s in SPECIALS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tok.train_from_iterator(texts, trainer)
    return tok


def render(messages: Sequence[Message], generate: bool = True) -> str:
    """The chat template's text for a conversation."""
    return str(_TEMPLATE.render(messages=list(messages), add_generation_prompt=generate))


def prompt_ids(tok: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """Token ids that end where the assistant's answer has to begin."""
    return list(tok.encode(render(messages), add_special_tokens=False).ids)


def example_ids(tok: Tokenizer, messages: Sequence[Message]) -> tuple[list[int], list[bool]]:
    """Ids of a whole conversation and, per id, whether the assistant says it (the end token included)."""
    ids = list(tok.encode(render(messages, generate=False), add_special_tokens=False).ids)
    spoken, inside = [], False
    for i in ids:
        spoken.append(inside)
        inside = i == ASSISTANT or (inside and i != END)
    return ids, spoken


def save_tokenizer(tok: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json as on the Hub."""
    tok.save(str(folder / "tokenizer.json"))
    roles = {"bos_token": SPECIALS[BOS], "eos_token": SPECIALS[END], "pad_token": SPECIALS[PAD]}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": CONTEXT,
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        **roles,
        "additional_special_tokens": list(SPECIALS[SYSTEM:]),
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    (folder / "special_tokens_map.json").write_text(json.dumps(roles, indent=2) + "\n", encoding="utf-8")
