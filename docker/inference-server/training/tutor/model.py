"""The tutor's shape: a small Llama with tied embeddings, and its loss on what the assistant says."""

from __future__ import annotations

import copy
from dataclasses import asdict, dataclass

import torch
from chat import BOS, CONTEXT, END, PAD
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from wiring import wire


@dataclass(frozen=True)
class Shape:
    """Sizes of the network; the defaults are the committed model's."""

    vocab: int = 3072
    layers: int = 4
    hidden: int = 256
    inner: int = 688
    heads: int = 4


def build(shape: Shape) -> LlamaForCausalLM:
    """A fresh network with random weights (call torch.manual_seed before)."""
    s = asdict(shape)
    config = LlamaConfig(
        vocab_size=s["vocab"],
        num_hidden_layers=s["layers"],
        hidden_size=s["hidden"],
        intermediate_size=s["inner"],
        num_attention_heads=s["heads"],
        num_key_value_heads=s["heads"],
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=BOS,
        eos_token_id=END,
        pad_token_id=PAD,
        rms_norm_eps=1e-5,
    )
    net = LlamaForCausalLM(config)
    with torch.no_grad():  # the residual stream begins as the embeddings alone, so that later layers can see the tokens
        for layer in net.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    wire(net)
    net.generation_config = GenerationConfig(
        do_sample=False, max_new_tokens=96, bos_token_id=BOS, eos_token_id=END, pad_token_id=PAD
    )
    return net


@dataclass(frozen=True)
class Batch:
    """``ids`` and the ``weights`` of what the assistant says, both rows x places; ``labels``, rows x (place, label or -1)."""

    ids: Tensor
    weights: Tensor
    labels: Tensor


def answer_loss(net: LlamaForCausalLM, hidden: Tensor, batch: Batch) -> Tensor:
    """Weighted mean cross-entropy of the tokens whose weight is above zero; zero where there is none.

    Rows are padded on the right and attention is causal, so no mask is needed; logits are made only where they count.
    """
    wanted = batch.weights[:, 1:] > 0
    if not wanted.any():
        return torch.zeros(())
    losses = cross_entropy(net.lm_head(hidden[:, :-1][wanted]).float(), batch.ids[:, 1:][wanted], reduction="none")
    w = batch.weights[:, 1:][wanted]
    return (losses * w).sum() / w.sum()


def label_loss(labels: nn.Linear, hidden: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of which entry is asked for, told from the place where the answer begins.

    The question decides the answer before its first word, but the loss on words spreads that one decision over many
    tokens of which most are recitation. This head asks for it at once. It is left out of the saved model.
    """
    place, label = batch.labels[:, 0], batch.labels[:, 1]
    known = label >= 0
    if not known.any():
        return torch.zeros(())
    states = hidden[torch.arange(len(place)), place][known]
    return cross_entropy(labels(states).float(), label[known], label_smoothing=0.05)


class Average:
    """A running mean of the weights, which answers a little better than the last step's; it is what is saved."""

    def __init__(self, net: LlamaForCausalLM, keep: float = 0.998) -> None:
        self.net, self.keep = copy.deepcopy(net).eval(), keep

    def update(self, net: LlamaForCausalLM, step: int) -> None:
        """Take in the weights after ``step``; early steps weigh more, so that the beginning is forgotten."""
        share = 1 - min(self.keep, step / (step + 10))
        with torch.no_grad():
            for mean, now in zip(self.net.parameters(), net.parameters(), strict=True):
                mean.lerp_(now, share)
