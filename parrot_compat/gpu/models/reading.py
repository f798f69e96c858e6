"""Reads the JSON files of a checkpoint, and its config.json as transformers does.

The invariant: a config that it returns is that of a model of text that `families` does not refuse; anything else is a
`ModelRefused` whose message names the file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from transformers import AutoConfig

from parrot_compat.core.errors import ModelRefused
from parrot_compat.gpu.models.families import DECODERS, MULTIMODAL, check_family

__all__ = ["read_config", "read_json"]


def read_config(path: Path) -> Any:
    """config.json as transformers' object; of a checkpoint of `MULTIMODAL` that of its text model."""
    stated = read_json(path / "config.json")
    if "model_type" not in stated:
        raise ModelRefused(f"{path}/config.json has no model_type")
    if stated["model_type"] not in DECODERS:
        check_family(str(path), stated)  # before transformers reads it: its own error would not name the file
    try:
        config = AutoConfig.from_pretrained(str(path), trust_remote_code=False, local_files_only=True)
    except Exception as error:  # whatever a broken value made transformers trip over
        raise ModelRefused(f"{path}/config.json cannot be read by transformers: {error}") from error
    check_family(str(path), config.to_dict())
    if config.model_type in MULTIMODAL:
        config = _text_of(config)
        check_family(str(path), config.to_dict())
    return config


def _text_of(whole: Any) -> Any:
    """The text model as the whole runs it: some things only the whole states, or states otherwise."""
    text = whole.text_config
    text.tie_word_embeddings = whole.tie_word_embeddings
    text.final_logit_softcapping = None  # Gemma 3's whole caps no logits, whatever the config of its text says
    for name in ("dtype", "eos_token_id"):
        if (value := getattr(whole, name, None)) is not None:
            setattr(text, name, value)
    return text


def read_json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelRefused(f"{file} is missing") from error
    except (ValueError, OSError) as error:
        raise ModelRefused(f"{file} is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelRefused(f"{file} holds {type(value).__name__}, not a JSON object")
    return value
