"""Tiny random checkpoints, one per model shape that the engine must run exactly.

They are normal Hugging Face folders (config, safetensors, tokenizer) and know nothing of the engine.
The invariant: every weight matters. Biases and norms, which Hugging Face initialises to zero and one, are random too,
so that an engine which drops one of them draws other tokens.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.gpu.models.tiny import save_tiny

__all__ = [
    "CONTEXT_TOKENS",
    "FAMILIES",
    "MORE_FAMILIES",
    "SHAPES",
    "SLIDING_WINDOW",
    "VOCAB_SIZE",
    "build",
    "build_tokenizer",
]

VOCAB_SIZE = 512
CONTEXT_TOKENS = 512
SLIDING_WINDOW = 24  # far shorter than the prompts, and not a multiple of any page size used here

_SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_TEXT = "the quick brown fox jumps over the lazy dog while seven wizards mix potions and parrots repeat what they hear "

_SIZES: dict[str, Any] = {
    "vocab_size": VOCAB_SIZE,
    "max_position_embeddings": CONTEXT_TOKENS,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
# Llama 3's scaling with an original context so short that the 8 frequencies of a 16-wide head fall on all three
# branches of the rule: kept, blended and divided.
_LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def _llama() -> PreTrainedModel:
    """Grouped queries, an untied head, Llama 3 rope scaling."""
    return LlamaForCausalLM(
        LlamaConfig(
            **_SIZES,
            hidden_size=64,
            intermediate_size=160,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=False,
            rope_parameters={"rope_theta": 10000.0, **_LLAMA3_SCALING},
        )
    )


def _llama_tied() -> PreTrainedModel:
    """A tied head, one key head for all queries, attention and MLP biases."""
    return LlamaForCausalLM(
        LlamaConfig(
            **_SIZES,
            hidden_size=96,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=1,
            tie_word_embeddings=True,
            attention_bias=True,
            mlp_bias=True,
        )
    )


def _mistral() -> PreTrainedModel:
    """A sliding window shorter than the prompts."""
    return MistralForCausalLM(
        MistralConfig(
            **_SIZES,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=8,
            num_key_value_heads=2,
            head_dim=16,
            sliding_window=SLIDING_WINDOW,
            tie_word_embeddings=False,
        )
    )


def _qwen2() -> PreTrainedModel:
    """Biases on queries, keys and values; a tied head."""
    return Qwen2ForCausalLM(
        Qwen2Config(
            **_SIZES,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=True,
        )
    )


def _qwen3() -> PreTrainedModel:
    """Norms on queries and keys; heads wider than hidden_size / heads."""
    return Qwen3ForCausalLM(
        Qwen3Config(
            **_SIZES,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=32,
            tie_word_embeddings=False,
        )
    )


SHAPES: Mapping[str, Callable[[], PreTrainedModel]] = {
    "llama": _llama,
    "llama-tied": _llama_tied,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
}
FAMILIES = tuple(SHAPES)
MORE_FAMILIES = ("gemma", "gemma2", "gemma3_text", "phi3", "mixtral", "cohere2")
"""The others of the table, and two decoders that the probe lets in; their weights are those of the model tests."""


def build(shape: str, folder: Path) -> Path:
    """Write the checkpoint called `shape` into `folder`. Same shape, same weights."""
    if shape in MORE_FAMILIES:
        save_tiny(shape, folder, vocab_size=VOCAB_SIZE, max_position_embeddings=CONTEXT_TOKENS)
        build_tokenizer(_SPECIAL_TOKENS, "").save_pretrained(folder)
        return folder
    torch.manual_seed(FAMILIES.index(shape))
    model = SHAPES[shape]().to(torch.float32).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            _randomise(name, weight)
    model.save_pretrained(folder, max_shard_size="200KB")
    if shape == "llama":
        _write_rope_as_version_4_did(folder / "config.json")
    build_tokenizer(_SPECIAL_TOKENS, _CHAT_TEMPLATE).save_pretrained(folder)
    return folder


def _randomise(name: str, weight: torch.Tensor) -> None:
    if name.endswith("bias"):
        weight.normal_(0.0, 0.5)
    elif "q_norm" in name or "k_norm" in name:
        weight.normal_(1.6, 0.4)  # sharp attention: at 1.0 it is close to a mean over all keys
    elif "norm" in name:
        weight.normal_(1.0, 0.3)
    elif "embed_tokens" in name or "lm_head" in name:
        weight.normal_(0.0, 0.25)  # small beside what the layers add, so that text depends on more than its last token
    else:
        # Four times the variance that keeps a vector's size: attention tells one key from its neighbour, while
        # float32 noise in the logits (below 7e-5) stays under the margin at which two tokens count as tied.
        weight.normal_(0.0, (4.0 / weight.shape[-1]) ** 0.5)


def _write_rope_as_version_4_did(path: Path) -> None:
    """Most published checkpoints were saved before `rope_parameters` existed; one of ours reads like them."""
    config = json.loads(path.read_text())
    scaling = config.pop("rope_parameters")
    config["rope_theta"] = scaling.pop("rope_theta")
    config["rope_scaling"] = scaling
    config["torch_dtype"] = config.pop("dtype")
    path.write_text(json.dumps(config, indent=2))


def build_tokenizer(special_tokens: tuple[str, ...], chat_template: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE of exactly VOCAB_SIZE ids whose first ids are `special_tokens`, the first of them padding."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[assignment]
    tokenizer.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(special_tokens),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([_TEXT], trainer)
    words = [f" number{n}" for n in range(VOCAB_SIZE - tokenizer.get_vocab_size())]
    tokenizer.add_tokens(words)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=special_tokens[-1],
        pad_token=special_tokens[0],
        chat_template=chat_template,
        clean_up_tokenization_spaces=False,
    )
