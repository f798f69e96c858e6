"""The models we bring ourselves, as normal Hugging Face folders.

`builtin:tiny` is the small Llama that is shipped in `builtin_tiny/`, trained by recipes/train_builtin: it copies,
quotes, edits, extracts and calls tools. `builtin:random` is another, with its vocabulary and weights drawn from a fixed
seed: it hardly ever comes to an end and says nothing, which is what tests and measurements of an engine want.

Knows file formats; nothing of engines or loading. The invariant: a folder that exists under its name is whole, and is
the same on every machine. What is made is written beside its place and renamed into it; its name carries a hash of
everything that it is made from.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from ...core.errors import ModelRefused

__all__ = ["NAMES", "checkpoint"]

NAMES = ("tiny", "random")

_SHIPPED = Path(__file__).parent / "builtin_tiny"

_SEED = 20240501
_WEIGHTS_VERSION = 1
"""Goes up when `_weights` draws other numbers, so that old folders are not taken for new ones."""
_SPREAD = 1.6
"""Gain of every random layer: wide enough that greedy text varies (at 0.7 some texts circle in ten words)."""

_CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 4096,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "hidden_act": "silu",
    "max_position_embeddings": 8192,
    "rope_theta": 100000.0,
    "rms_norm_eps": 1e-5,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": [2, 0],
    "pad_token_id": 3,
    "initializer_range": 0.1,
    "dtype": "float32",
    "use_cache": True,
}
_GENERATION = {"bos_token_id": None, "eos_token_id": [2, 0], "pad_token_id": 3}
_TOKENIZER = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "model_max_length": 8192,
    "bos_token": None,
    "eos_token": "<|im_end|>",
    "pad_token": "<|pad|>",
    "add_bos_token": False,
    "clean_up_tokenization_spaces": False,
}


def checkpoint(name: str) -> Path:
    """The folder of `builtin:<name>`: in the package, or in the user's cache, made on first use. Errors:
    `ModelRefused`."""
    if name not in NAMES:
        raise ModelRefused(f"no builtin model {name!r}; there is {' and '.join(NAMES)}")
    if name == "tiny":
        return _SHIPPED
    files = _files()
    try:
        place = _cache() / f"{name}-{_content_hash(files)}"
        if not place.is_dir():
            _create(place, files)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        raise ModelRefused(
            f"builtin:{name} cannot be written: {error}; set XDG_CACHE_HOME to a writable folder"
        ) from error
    return place


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parrot_compat"


def _files() -> dict[str, str]:
    """The text files of the folder, by name."""
    template = (_SHIPPED / "chat_template.jinja").read_text("utf-8")
    return {
        "config.json": _json(_CONFIG),
        "generation_config.json": _json(_GENERATION),
        "tokenizer.json": (_SHIPPED / "tokenizer.json").read_text("utf-8"),
        "tokenizer_config.json": _json(_TOKENIZER | {"chat_template": template}),
    }


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _content_hash(files: Mapping[str, str]) -> str:
    made_from = json.dumps([_SEED, _WEIGHTS_VERSION, _SPREAD, files], sort_keys=True)
    return hashlib.sha256(made_from.encode()).hexdigest()[:12]


def _create(place: Path, files: Mapping[str, str]) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        for name, text in files.items():
            (draft / name).write_text(text, "utf-8")
        save_file(dict(_weights()), draft / "model.safetensors", metadata={"format": "pt"})
        draft.chmod(0o755)
        draft.rename(place)
    except OSError:
        if not place.is_dir():  # else another process has just made the same folder
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _weights() -> Iterator[tuple[str, np.ndarray[Any, np.dtype[np.float32]]]]:
    """Every tensor has a generator of its own, seeded by its name: their order does not matter.

    NumPy's normal deviates are the same on every machine; torch's depend on the processor.
    """
    for name, shape in _shapes().items():
        if len(shape) == 1:
            yield name, np.ones(shape, np.float32)
            continue
        drawn = np.random.default_rng([_SEED, zlib.crc32(name.encode())]).standard_normal(shape, np.float32)
        scale = 1.0 if "embed_tokens" in name else _SPREAD / shape[1] ** 0.5
        yield name, drawn * np.float32(scale)


def _shapes() -> dict[str, tuple[int, ...]]:
    hidden, inner, head = _CONFIG["hidden_size"], _CONFIG["intermediate_size"], _CONFIG["head_dim"]
    query, shared = _CONFIG["num_attention_heads"] * head, _CONFIG["num_key_value_heads"] * head
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (_CONFIG["vocab_size"], hidden)}
    for layer in range(_CONFIG["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        shapes |= {
            f"{at}.input_layernorm.weight": (hidden,),
            f"{at}.self_attn.q_proj.weight": (query, hidden),
            f"{at}.self_attn.k_proj.weight": (shared, hidden),
            f"{at}.self_attn.v_proj.weight": (shared, hidden),
            f"{at}.self_attn.o_proj.weight": (hidden, query),
            f"{at}.post_attention_layernorm.weight": (hidden,),
            f"{at}.mlp.gate_proj.weight": (inner, hidden),
            f"{at}.mlp.up_proj.weight": (inner, hidden),
            f"{at}.mlp.down_proj.weight": (hidden, inner),
        }
    return shapes | {"model.norm.weight": (hidden,), "lm_head.weight": (_CONFIG["vocab_size"], hidden)}
