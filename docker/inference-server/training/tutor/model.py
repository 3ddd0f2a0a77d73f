"""The tutor's shape: a small Llama with tied embeddings, and its loss on what the assistant says."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from chat import BOS, CONTEXT, END, PAD
from torch import Tensor
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


def answer_loss(net: LlamaForCausalLM, ids: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean cross-entropy of the tokens whose weight is above zero.

    Rows are padded on the right and attention is causal, so no mask is needed; logits are made only where they count.
    """
    hidden = net.model(input_ids=ids).last_hidden_state[:, :-1]
    wanted = weights[:, 1:] > 0
    losses = cross_entropy(net.lm_head(hidden[wanted]).float(), ids[:, 1:][wanted], reduction="none")
    w = weights[:, 1:][wanted]
    return (losses * w).sum() / w.sum()
