"""The text of multimodal checkpoints: Gemma 3 with its vision tower beside it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, Gemma3ForConditionalGeneration, Gemma3TextConfig

from parrot_compat.core.errors import ModelRefused
from parrot_compat.gpu.models.decoder import FastDecoder
from parrot_compat.gpu.models.transformers_models import TransformersDecoder
from parrot_compat.gpu.models.weights import read_facts
from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer
from tests.gpu.models.tiny import BASE, SPECIAL
from tests.gpu.test_runner import OUTPUT, generate, make_runner, prompts, sequences
from tests.gpu.vocabularies import save_vocabulary

LENGTHS = [1, 4, 17, 33, 60]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As transformers saves it; the text is tied, and the whole ends at 1 and 106."""
    text = {**BASE, **SPECIAL["gemma3_text"], "tie_word_embeddings": True, "final_logit_softcapping": 0.5}
    eye = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    config = AutoConfig.for_model(
        "gemma3",
        text_config=text,
        vision_config={**eye, "image_size": 8, "patch_size": 4},
        mm_tokens_per_image=4,
        image_token_index=255,
        eos_token_id=[1, 106],
    )
    model = Gemma3ForConditionalGeneration(config)
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=random)
            if "norm" in name:
                parameter.copy_(0.2 * noise)
            else:  # small embeddings: else a tied model says its last token again
                parameter.copy_(noise * (0.05 if "embed_tokens" in name else 1.5 / parameter.shape[-1] ** 0.5))
    path = tmp_path_factory.mktemp("checkpoint") / "gemma3"
    model.save_pretrained(path)
    (path / "generation_config.json").unlink()
    return path


def generate_with_the_whole(path: Path, texts: Sequence[list[int]]) -> list[list[int]]:
    model = Gemma3ForConditionalGeneration.from_pretrained(path, attn_implementation="eager").eval()
    asked: dict[str, Any] = {"max_new_tokens": OUTPUT, "do_sample": False, "eos_token_id": None}
    answers = []
    for text in texts:
        ids = torch.tensor([text])
        with torch.inference_mode():
            answers.append(model.generate(ids, attention_mask=torch.ones_like(ids), **asked)[0, len(text) :].tolist())
    return answers


def test_its_greedy_tokens_are_those_that_the_whole_generates(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = prompts(LENGTHS)
    expected = generate_with_the_whole(checkpoint, texts)
    assert len({token for answer in expected for token in answer}) >= 20, "the checkpoint's text must vary"
    runner = make_runner(checkpoint)
    assert isinstance(runner._decoder, FastDecoder) and runner._decoder.plan.final_soft_cap is None
    assert generate(runner, sequences(texts)) == expected

    monkeypatch.setattr(FastDecoder, "load", classmethod(lambda *_, **__: None))
    runner = make_runner(checkpoint)
    assert isinstance(runner._decoder, TransformersDecoder)
    assert generate(runner, sequences(texts)) == expected


def renamed(name: str) -> str:
    """As transformers names them in memory, and some save them."""
    name = name.replace("language_model.lm_head.", "lm_head.").replace("language_model.model.", "model.language_model.")
    return name if name.startswith(("model.", "lm_head.")) else f"model.{name}"


@pytest.mark.parametrize("has_head", [False, True], ids=["tied", "with a head of its own"])
@pytest.mark.parametrize("name_of", [str, renamed], ids=["as in old files", "as in memory"])
def test_its_files_name_the_text_in_several_ways(
    name_of: Any, has_head: bool, checkpoint: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(checkpoint, tmp_path / "mine"))
    tensors = load_file(path / "model.safetensors")
    if has_head:
        change(path, tie_word_embeddings=False)
        embedding = tensors["language_model.model.embed_tokens.weight"]
        tensors["language_model.lm_head.weight"] = embedding.flip(0).clone()
    save_file({name_of(name): value for name, value in tensors.items()}, path / "model.safetensors", {"format": "pt"})
    texts = prompts([4, 33])

    assert generate(make_runner(path), sequences(texts)) == generate_with_the_whole(path, texts)


def test_a_vocabulary_that_its_files_take_for_granted_is_transformers(tmp_path: Path) -> None:
    """As Google's files do: the model has 63 rows more than the tokenizer has words."""
    path = save_vocabulary("qwen3", tmp_path / "mine")
    (path / "config.json").write_text('{"model_type": "gemma3", "text_config": {"model_type": "gemma3_text"}}')
    rows = Gemma3TextConfig().vocab_size

    assert HuggingFaceTokenizer(path).vocabulary == read_facts(path).vocab_size == rows


def change(path: Path, **changes: Any) -> None:
    file = path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_what_the_whole_states_of_its_text_is_known(checkpoint: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(checkpoint, tmp_path / "mine"))
    change(path, dtype="bfloat16")
    facts = read_facts(path)

    assert (facts.model_type, facts.layers, facts.heads, facts.head_dim) == ("gemma3_text", 2, 4, 32)
    assert (facts.dtype, facts.eos_token_ids, facts.has_fast_decoder) == ("bfloat16", (1, 106), True)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"quantization_config": {"quant_method": "awq"}}, r"quantized weights \(awq\)"),
        ({"architectures": ["Gemma3ForSequenceClassification"]}, "Gemma3ForSequenceClassification.*are not served"),
        ({"model_type": "mistral3"}, "'mistral3' is a multimodal checkpoint"),
    ],
)
def test_what_is_refused_of_a_text_is_refused_of_the_whole(
    changes: dict[str, Any], reason: str, checkpoint: Path, tmp_path: Path
) -> None:
    path = Path(shutil.copytree(checkpoint, tmp_path / "mine"))
    change(path, **changes)

    with pytest.raises(ModelRefused, match=reason):
        read_facts(path)


def test_a_tensor_that_neither_the_text_nor_the_eye_has_is_refused_by_name(checkpoint: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(checkpoint, tmp_path / "mine"))
    tensors = load_file(path / "model.safetensors") | {"audio_tower.weight": torch.zeros(4)}
    save_file(tensors, path / "model.safetensors", {"format": "pt"})

    with pytest.raises(ModelRefused, match=r"unexpected_keys audio_tower\.weight"):
        make_runner(path)
