"""The decoder of our own is strict about its weights; the paths beside the fast one draw the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from parrot_compat.core.errors import ModelRefused
from parrot_compat.gpu.kernels.cpu import build
from parrot_compat.gpu.models.decoder import FastDecoder
from parrot_compat.gpu.models.families import FAMILIES
from parrot_compat.gpu.models.transformers_models import TransformersDecoder
from tests.gpu.models.tiny import save_tiny
from tests.gpu.test_runner import generate, generate_with_transformers, make_runner, prompts, sequences

Checkpoint = Callable[[str], Path]


@pytest.fixture
def torch_alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv(build.SWITCH, "torch")
    build.library.cache_clear()
    yield
    build.library.cache_clear()


@pytest.mark.usefixtures("torch_alone")
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_without_kernels_of_our_own_the_tokens_are_hugging_faces(family: str, tiny_checkpoint: Checkpoint) -> None:
    path, texts = tiny_checkpoint(family), prompts([1, 17, 60])
    runner = make_runner(path)

    assert isinstance(runner._decoder, FastDecoder) and runner._decoder.kernels.name == "torch"
    assert generate(runner, sequences(texts)) == generate_with_transformers(path, texts)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_transformers_modules_draw_the_same_tokens(
    family: str, tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, texts = tiny_checkpoint(family), prompts([1, 17, 60])
    fast = generate(make_runner(path), sequences(texts))
    monkeypatch.setattr(FastDecoder, "load", classmethod(lambda *_, **__: None))
    runner = make_runner(path)

    assert isinstance(runner._decoder, TransformersDecoder)
    assert generate(runner, sequences(texts)) == fast


def head_of_its_own(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Fine-tuning with the head among the modules to save leaves one."""
    return tensors | {"lm_head.weight": torch.randn_like(tensors["model.embed_tokens.weight"])}


def head_alone(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return tensors | {"lm_head.weight": tensors.pop("model.embed_tokens.weight")}


def model_without_its_head(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As Qwen3-Embedding's files name them."""
    return {name.removeprefix("model."): value for name, value in tensors.items()}


@pytest.mark.parametrize("changed", [head_of_its_own, head_alone, model_without_its_head])
def test_files_that_name_a_tied_model_otherwise_give_hugging_faces_tokens(
    tmp_path: Path, changed: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]
) -> None:
    path, texts = save_tiny("qwen2", tmp_path / "model"), prompts([1, 17, 60])
    file = path / "model.safetensors"
    tensors = load_file(file)
    assert "lm_head.weight" not in tensors, "it is tied"
    save_file(changed(tensors), file, metadata={"format": "pt"})
    assert generate(make_runner(path), sequences(texts)) == generate_with_transformers(path, texts)


def test_a_head_of_another_size_in_a_tied_model_is_refused_by_name(tmp_path: Path) -> None:
    path = save_tiny("qwen2", tmp_path / "model")
    tensors = load_file(path / "model.safetensors")
    size, hidden = tensors["model.embed_tokens.weight"].shape
    save_file(tensors | {"lm_head.weight": torch.zeros(size + 64, hidden)}, path / "model.safetensors")

    with pytest.raises(ModelRefused, match=r"mismatched_keys lm_head\.weight"):
        make_runner(path)


def test_a_tensor_that_the_model_does_not_have_is_refused_by_name(tmp_path: Path) -> None:
    path = save_tiny("llama", tmp_path / "model")
    tensors = load_file(path / "model.safetensors")
    tensors["model.layers.0.self_attn.sinks"] = torch.zeros(4)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})

    with pytest.raises(ModelRefused, match=r"unexpected_keys model\.layers\.0\.self_attn\.sinks"):
        make_runner(path)


def test_buffers_that_old_versions_saved_are_not_missed_or_minded(tmp_path: Path) -> None:
    path = save_tiny("llama", tmp_path / "model")
    tensors = load_file(path / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(8)
    save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})

    assert isinstance(make_runner(path)._decoder, FastDecoder)
