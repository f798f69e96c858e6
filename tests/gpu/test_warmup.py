"""What an engine on a CUDA device does before it is ready, driven on the CPU."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch

from parrot_compat.core.errors import ModelRefused
from parrot_compat.gpu import runner as runner_module
from parrot_compat.gpu import warmup
from parrot_compat.gpu.config import EngineConfig, Machine
from parrot_compat.gpu.kernels import AttentionInputs
from parrot_compat.gpu.kernels.strips import HeadShape, plan_strips, row_shapes
from parrot_compat.gpu.kernels.table import REFERENCE
from parrot_compat.gpu.kernels.triton.tiles import Kind, tiling
from parrot_compat.gpu.models.decoder import FastDecoder
from parrot_compat.gpu.models.transformers_models import TransformersDecoder
from parrot_compat.gpu.models.weights import read_facts
from parrot_compat.gpu.runner import ModelRunner

Checkpoint = Callable[[str], Path]
CPU = torch.device("cpu")


@pytest.mark.parametrize("page_size", [1, 16, 128])
@pytest.mark.parametrize("heads", [(4, 2), (32, 32)])
def test_every_kind_of_attention_has_run_before_an_engine_is_ready(
    page_size: int, heads: tuple[int, int], tiny_checkpoint: Checkpoint
) -> None:
    path, met = tiny_checkpoint("llama"), []
    decoder = FastDecoder.load(path, torch.float32, CPU)
    assert decoder is not None
    cut = tiling(HeadShape(heads=heads[0], kv_heads=heads[1], dim=16, element_bytes=2), processors=132)

    def prepare(inputs: AttentionInputs) -> AttentionInputs:
        plan = plan_strips(row_shapes(inputs), page_size, cut, inputs.shared)
        met.append({kind for kind in get_args(Kind) if len(getattr(plan, kind))})
        return inputs

    decoder.kernels = replace(REFERENCE, prepare=prepare)
    warmup.warm_up(decoder, read_facts(path), torch.float32, CPU, page_size)
    assert met == [{"direct"}, {"private"}, {"private", "shared"}]


def test_a_model_of_transformers_modules_is_warmed_up_too_and_the_log_says_how_long_it_took(
    tiny_checkpoint: Checkpoint, caplog: pytest.LogCaptureFixture
) -> None:
    path = tiny_checkpoint("mixtral")
    decoder = TransformersDecoder.load(path, torch.float32, CPU)
    with caplog.at_level(logging.INFO, warmup.__name__):
        warmup.warm_up(decoder, read_facts(path), torch.float32, CPU, page_size=16)
    begun, ended = [record.getMessage() for record in caplog.records if record.name == warmup.__name__]
    assert begun == "compiling and loading kernels"
    assert ended.startswith("kernels were ready after ") and ended.endswith(" s")


def test_weights_that_leave_no_room_for_a_step_are_refused_by_name(tiny_checkpoint: Checkpoint) -> None:
    path = tiny_checkpoint("llama")
    decoder = FastDecoder.load(path, torch.float32, CPU)
    assert decoder is not None

    def prepare(inputs: AttentionInputs) -> AttentionInputs:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nMore of it")

    decoder.kernels = replace(REFERENCE, prepare=prepare)
    with pytest.raises(ModelRefused, match=r"llama.* leaves no room .*: CUDA out of memory.*GiB\.$"):
        warmup.warm_up(decoder, read_facts(path), torch.float32, CPU, page_size=16)


def test_a_page_that_holds_more_than_the_model_has_positions_is_only_begun() -> None:
    decoded: list[int] = []
    facts = SimpleNamespace(
        layers=1, kv_heads=1, head_dim=4, vocab_size=8, max_position_embeddings=32, eos_token_ids=(1,)
    )

    def logits(batch: Any, storage: Any) -> torch.Tensor:
        decoded.append(max(batch.positions.tolist()))
        return torch.zeros(len(batch.drawn), 8)

    decoder: Any = SimpleNamespace(logits=logits)
    warmup.warm_up(decoder, facts, torch.float32, CPU, page_size=64)  # type: ignore[arg-type]
    assert decoded == [31]


def test_on_a_cuda_device_kernels_are_there_before_memory_is_measured_and_positions_before_the_first_step(
    tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def measured(device: torch.device) -> Machine:
        done.append("measured")
        return Machine(device="cuda", free_bytes=1 << 30, cores=1)

    def warmed(decoder: object, facts: object, dtype: torch.dtype, device: torch.device, page_size: int) -> None:
        done.append(f"warmed up with pages of {page_size}")

    decoder = SimpleNamespace(kernels=REFERENCE, cover=lambda tokens: done.append(f"{tokens} positions"))
    monkeypatch.setattr(runner_module, "choose_device", lambda config: torch.device("cuda"))
    monkeypatch.setattr(runner_module.FastDecoder, "load", lambda *paths, **options: decoder)
    monkeypatch.setattr(runner_module, "measure", measured)
    monkeypatch.setattr(runner_module, "warm_up", warmed)
    monkeypatch.setattr(runner_module, "KvStorage", lambda *sizes: done.append("KV"))
    ModelRunner(EngineConfig(model=str(tiny_checkpoint("llama")), max_model_len=200))
    assert done == ["warmed up with pages of 16", "measured", "KV", "200 positions"]


def test_positions_that_are_there_are_not_made_again_by_the_longest_text(tiny_checkpoint: Checkpoint) -> None:
    decoder = FastDecoder.load(tiny_checkpoint("gemma3_text"), torch.float32, CPU)
    assert decoder is not None and len(decoder.rotary) == 2  # one scaling for each type of layer
    decoder.cover(10_000)
    tables = [scaling.cos for scaling in decoder.rotary.values()]  # type: ignore[union-attr]
    longest: Any = SimpleNamespace(attention=SimpleNamespace(kv_lengths=(10_000,)), positions=torch.zeros(1))
    assert all(scaling.places(longest).cos is cos for scaling, cos in zip(decoder.rotary.values(), tables, strict=True))
