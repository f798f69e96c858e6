"""Tiny random checkpoints of every family, as normal Hugging Face folders.

Norms and biases are random too, and the weights wide enough that greedy text varies: a dropped bias or a
wrong window must change a token.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

BASE = {
    "vocab_size": 256,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
YARN_ROPE = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
WINDOW = 12
"""Shorter than the prompts of the tests."""

SPECIAL: dict[str, dict[str, Any]] = {
    "llama": {"rope_parameters": LLAMA3_ROPE, "attention_bias": True},
    "mistral": {"sliding_window": WINDOW},
    "qwen2": {
        "tie_word_embeddings": True,
        "use_sliding_window": True,
        "sliding_window": WINDOW,
        "max_window_layers": 1,
    },
    "qwen3": {"head_dim": 32, "rope_parameters": YARN_ROPE},
    "gemma": {"head_dim": 32, "tie_word_embeddings": False},
    "gemma2": {
        "head_dim": 32,
        "sliding_window": WINDOW,
        "query_pre_attn_scalar": 32,
        "attn_logit_softcapping": 2.0,
        "tie_word_embeddings": False,
    },
    "gemma3_text": {
        "head_dim": 32,
        "sliding_window": WINDOW,
        "query_pre_attn_scalar": 32,
        "layer_types": ["sliding_attention", "full_attention"],
        "tie_word_embeddings": False,
    },
    "phi3": {"sliding_window": WINDOW},
}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
OTHERS: dict[str, dict[str, Any]] = {
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "qwen3_moe": {**MOE, "head_dim": 32},
    "qwen2_moe": {**MOE, "shared_expert_intermediate_size": 32},
    "olmo3": {"sliding_window": WINDOW},
    "cohere2": {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]},
    "granite": {},
    "glm4": {},
    "smollm3": {},
    "starcoder2": {"sliding_window": WINDOW, "tie_word_embeddings": False},
    # and what must be refused
    "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 32},
    "olmo": {},
    "stablelm": {},
    "gptj": {"n_embd": 64, "n_layer": 2, "n_head": 4, "rotary_dim": 8},
}
"""Families without a row of ours."""


def save_tiny(family: str, folder: Path, *, seed: int = 0, shard_size: str = "1GB", **overrides: Any) -> Path:
    config = AutoConfig.for_model(family, **{**BASE, **(SPECIAL | OTHERS)[family], **overrides})
    model = AutoModelForCausalLM.from_config(config)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=random)
            if ("norm" in name or "ln_" in name) and not name.endswith("bias"):
                parameter.copy_(1.0 + 0.2 * noise)
            elif parameter.dim() == 1:
                parameter.copy_(0.5 * noise)
            else:
                parameter.copy_(noise * 1.5 / parameter.shape[-1] ** 0.5)
    model.save_pretrained(folder, max_shard_size=shard_size)
    return folder
