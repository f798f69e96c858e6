"""Fetches a checkpoint from the Hugging Face hub, or takes it from the hub's cache.

The invariant: no weights are fetched of a model whose config.json is refused, and none that transformers would not
read: Mistral's and Meta's own files beside them (`consolidated.safetensors`, `original/`) are as large again.
"""

from __future__ import annotations

import textwrap
from pathlib import Path

from parrot_compat.core.errors import ModelRefused
from parrot_compat.gpu.models.reading import read_config

__all__ = ["download"]

SMALL_FILES = ["*.json", "*.jinja", "*.model", "*.txt"]
WEIGHTS = ["*.safetensors"]
OTHER_WEIGHTS = ["consolidated*.safetensors", "*/*.safetensors"]
REASON_CHARACTERS = 400


def download(model: str) -> Path:
    """The folder of a hub id. Errors: `ModelRefused`."""
    read_config(_snapshot(model, SMALL_FILES))
    # the small ones again: should the model have changed in between, this is another folder
    return _snapshot(model, SMALL_FILES + WEIGHTS)


def _snapshot(model: str, files: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return Path(snapshot_download(model, allow_patterns=files, ignore_patterns=OTHER_WEIGHTS))
    except Exception as error:  # the hub's own, and those of whatever carries its files: HTTP, proxies, xet
        # the hub's own say what is wrong below a blank line
        reason = textwrap.shorten(str(error), REASON_CHARACTERS, placeholder=" …") or type(error).__name__
        if isinstance(error, RepositoryNotFoundError):  # gated ones too
            reason += " — is the name right? A private or gated model needs a token in HF_TOKEN"
        raise ModelRefused(
            f"{model!r} is neither a folder here nor a model that the Hugging Face hub gave: {reason}"
        ) from error
