"""The checkpoints that benchmarks make: real shapes, the same weights each time, text that every server cuts alike."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from recipes.benchmarks.checkpoints import facts, folder
from recipes.benchmarks.text import open_tokenizer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        place = folder("l25-bf16")
        assert folder("l25-bf16") == place
        return place


def test_the_small_llama_has_its_shape(made: Path) -> None:
    known = facts(made)
    assert (known["model_type"], known["vocab_size"], known["dtype"]) == ("llama", 8192, "bfloat16")
    assert known["kv_bytes_per_token"] == 8 * 2 * 2 * 64 * 2
    weights = load_file(made / "model.safetensors")
    assert 23e6 < sum(tensor.numel() for tensor in weights.values()) < 25e6


def test_greedy_text_varies_and_is_whole_characters(made: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(made, dtype=torch.bfloat16)
    prompt = torch.tensor([[500, 600, 700, 800]])
    drawn = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=24, do_sample=False)[0, 4:]
    assert len(set(drawn.tolist())) > 12
    tokenizer = open_tokenizer(made)
    assert all("\N{REPLACEMENT CHARACTER}" not in tokenizer.decode([token]) for token in drawn.tolist())


def test_control_tokens_and_broken_characters_have_no_weight_in_the_answer(made: Path) -> None:
    head = load_file(made / "model.safetensors")["lm_head.weight"]
    silent = {int(token) for token in (head.abs().sum(1) == 0).nonzero()[:, 0]}
    assert {0, 1, 2, 3} <= silent
    vocabulary = open_tokenizer(made).get_vocab()
    assert vocabulary["Ã"] in silent  # a byte that only begins a character
    assert vocabulary["a"] not in silent
    assert len(silent) < 400


def test_a_folder_that_is_no_checkpoint_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"no checkpoint .*l25-fp32"):
        folder(str(tmp_path))
