"""From what was asked to what was decided."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from parrot_compat.core.call import Sampling
from parrot_compat.core.errors import EngineError, ModelRefused
from parrot_compat.gpu import machine
from parrot_compat.gpu.config import CheckpointFacts, EngineConfig, Machine, choose_dtype, resolve
from parrot_compat.gpu.memory import step_bytes

GIB = 1 << 30
FACTS = CheckpointFacts(
    path="/models/m",
    model_type="llama",
    layers=8,
    heads=6,
    kv_heads=2,
    head_dim=64,
    vocab_size=8192,
    max_position_embeddings=4096,
    hidden_size=384,
    intermediate_size=1024,
    dtype="float32",
    eos_token_ids=(2, 5),
    defaults=Sampling(temperature=0.6),
    notes=("generation_config.json asks for typical_p = 0.9, which is not applied",),
)
TOKEN_BYTES = 2 * 8 * 2 * 64 * 4
CPU = Machine(device="cpu", free_bytes=16 * GIB, cores=4)
CUDA = Machine(device="cuda", free_bytes=100 * GIB, cores=16)


def test_on_a_cpu_every_field_has_a_value_when_nothing_is_asked() -> None:
    resolved = resolve(EngineConfig(model="/models/m"), FACTS, CPU)

    assert (resolved.page_size, resolved.max_rows, resolved.step_tokens, resolved.threads) == (16, 64, 512, 4)
    assert resolved.context_tokens == 4096
    assert resolved.kv_tokens == 64 * 4096  # every row a full context: 2 GiB, less than a quarter of what is free
    assert resolved.served_model_name == "/models/m"
    assert resolved.dtype == "float32"
    assert resolved.checkpoint is FACTS


def test_on_a_gpu_the_kv_takes_its_share_of_what_the_weights_and_a_step_left() -> None:
    resolved = resolve(EngineConfig(gpu_memory_utilization=0.5), FACTS, CUDA)

    step_bytes = 8192 * (4 * 384 + 3 * 1024) * 4 + 256 * 8192 * 42
    assert resolved.pages == (100 * GIB - step_bytes) // 2 // (16 * TOKEN_BYTES)
    assert (resolved.max_rows, resolved.step_tokens) == (256, 8192)


def test_a_small_gpu_serves_a_small_model_with_a_large_vocabulary() -> None:
    gemma = replace(
        FACTS, layers=26, heads=4, kv_heads=1, head_dim=256, vocab_size=262_144, hidden_size=1152,
        intermediate_size=6912, dtype="bfloat16", max_position_embeddings=32_768,
    )  # fmt: skip
    found = resolve(EngineConfig(), gemma, replace(CUDA, free_bytes=1_550_000_000))
    assert found.kv_tokens > 10_000 and found.max_rows >= 16


@pytest.mark.parametrize("free_bytes", [3_000_000_000, 7_800_000_000, 60_000_000_000])
def test_on_a_gpu_the_largest_step_of_a_large_model_fits_beside_its_kv(free_bytes: int) -> None:
    llama_8b = replace(
        FACTS, layers=32, heads=32, kv_heads=8, head_dim=128, vocab_size=128_256, hidden_size=4096,
        intermediate_size=14_336, dtype="bfloat16", max_position_embeddings=8192,
    )  # fmt: skip
    found = resolve(EngineConfig(gpu_memory_utilization=1.0), llama_8b, replace(CUDA, free_bytes=free_bytes))

    kv_bytes = found.kv_tokens * 2 * 32 * 8 * 128 * 2
    states_bytes = found.step_tokens * (4 * 4096 + 3 * 14_336) * 2
    rows = found.max_rows
    drawing_bytes = 128_256 * max(54 * min(rows, 127), 42 * rows)
    assert kv_bytes + states_bytes + drawing_bytes + min(512 << 20, free_bytes // 16) <= free_bytes
    assert found.step_tokens >= 4096 and found.context_tokens > 4096 and rows >= 64


@pytest.mark.parametrize(("rows", "bytes_of_a_score"), [(1, 54), (64, 54), (127, 54), (256, 42)])
def test_a_step_has_room_for_the_sort_of_top_p(rows: int, bytes_of_a_score: int) -> None:
    """Keys, indices, and both again while they are sorted, which fewer than 128 rows are with their row beside."""
    assert step_bytes(FACTS, "bfloat16", tokens=0, rows=rows, context=9) == rows * 8192 * bytes_of_a_score


def test_even_a_gpu_that_may_be_filled_keeps_room_for_what_is_no_tensor_of_a_step() -> None:
    asked = EngineConfig(gpu_memory_utilization=1.0, step_tokens=1, max_rows=1)
    for free_bytes, spare in ((100 * GIB, 512 << 20), (2 * GIB, 128 << 20)):
        resolved = resolve(asked, FACTS, replace(CUDA, free_bytes=free_bytes))
        step = (4 * 384 + 3 * 1024) * 4 + 8192 * 54
        assert resolved.pages == (free_bytes - step - spare) // (16 * TOKEN_BYTES)


MIXTURE = replace(
    FACTS, model_type="qwen3_moe", has_fast_decoder=False, layers=48, heads=32, kv_heads=4, head_dim=128,
    vocab_size=151_936, hidden_size=2048, intermediate_size=6144, max_position_embeddings=40_960, dtype="bfloat16",
)  # fmt: skip
CARD = replace(CUDA, free_bytes=24_000_000_000)


def test_a_step_of_transformers_modules_has_room_for_the_logits_of_all_its_tokens() -> None:
    """A prompt whose log probabilities are wanted: 8192 x 151,936 numbers of two bytes beside the states."""
    resolved = resolve(EngineConfig(), MIXTURE, CARD)
    step = 8192 * 2 * (4 * 2048 + 3 * 6144 + 151_936) + 256 * 151_936 * 42
    assert resolved.step_tokens == 8192
    assert resolved.pages == int((CARD.free_bytes - step) * 0.9) // (16 * 2 * 48 * 4 * 128 * 2)
    fast = resolve(EngineConfig(), replace(MIXTURE, has_fast_decoder=True), CARD)
    assert (fast.pages - resolved.pages) * 16 * 2 * 48 * 4 * 128 * 2 > 2_200_000_000


def test_a_step_of_transformers_modules_has_room_for_the_mask_of_a_long_text() -> None:
    """Of each token and key a bit and, twice, a number: 262,144 keys make that most of the step."""
    long = replace(MIXTURE, max_position_embeddings=262_144)
    card = replace(CARD, free_bytes=32_000_000_000)
    resolved = resolve(EngineConfig(), long, card)
    of_a_token = 2 * (4 * 2048 + 3 * 6144) + 262_144 * 5
    assert resolved.step_tokens == 4096  # of 8192 tokens it would be 11 GB, more than a quarter of what is free
    step = 4096 * of_a_token + 256 * 151_936 * 42
    assert resolved.pages == int((card.free_bytes - step) * 0.9) // (16 * 2 * 48 * 4 * 128 * 2)
    # no text is longer than what the memory, or the KV that was asked for, can hold of it
    assert resolve(EngineConfig(kv_tokens=10_000), long, card).step_tokens == 8192


def test_a_small_gpu_computes_few_tokens_at_once() -> None:
    small = replace(CARD, free_bytes=1_000_000_000)
    assert resolve(EngineConfig(dtype="float32"), MIXTURE, small).step_tokens == 512


def test_on_a_cpu_the_kv_takes_at_most_a_quarter_of_the_free_memory() -> None:
    resolved = resolve(EngineConfig(), FACTS, replace(CPU, free_bytes=GIB))

    assert resolved.pages == GIB // 4 // (16 * TOKEN_BYTES)
    assert resolved.context_tokens == 4096


def test_one_full_context_gets_more_than_the_share_if_memory_allows_it() -> None:
    free = 4096 * TOKEN_BYTES * 2
    resolved = resolve(EngineConfig(), FACTS, replace(CPU, free_bytes=free))

    assert resolved.kv_tokens == resolved.context_tokens == 4096


def test_the_context_never_exceeds_the_pages() -> None:
    resolved = resolve(EngineConfig(kv_tokens=100, page_size=16), FACTS, CPU)

    assert (resolved.pages, resolved.kv_tokens, resolved.context_tokens) == (7, 112, 112)


def test_the_context_never_exceeds_the_positions_of_the_checkpoint() -> None:
    assert resolve(EngineConfig(max_model_len=100_000), FACTS, CPU).context_tokens == 4096
    assert resolve(EngineConfig(max_model_len=77), FACTS, CPU).context_tokens == 77


def test_asked_values_are_taken_as_they_are() -> None:
    asked = EngineConfig(page_size=4, max_rows=3, step_tokens=7, threads=1, served_model_name="m", dtype="bfloat16")
    resolved = resolve(replace(asked, enable_prefix_caching=False), FACTS, CPU)

    assert (resolved.page_size, resolved.max_rows, resolved.step_tokens, resolved.threads) == (4, 3, 7, 1)
    assert (resolved.served_model_name, resolved.dtype, resolved.enable_prefix_caching) == ("m", "bfloat16", False)


def test_engines_that_share_a_machine_share_its_cores() -> None:
    assert resolve(EngineConfig(engines_here=3), FACTS, CUDA).threads == 5
    assert resolve(EngineConfig(engines_here=8), FACTS, CPU).threads == 1
    assert resolve(EngineConfig(engines_here=8, threads=3), FACTS, CPU).threads == 3


@pytest.mark.parametrize("engines", [1, 2, 3, 8])
@pytest.mark.parametrize("free_bytes", [64 << 20, 192 << 20, 16 * GIB])
@pytest.mark.parametrize("positions", [4096, 1 << 19])
def test_engines_that_share_a_machine_share_its_memory(engines: int, free_bytes: int, positions: int) -> None:
    """All together they have no more than one may have: its share, or a full context in half of what is free."""
    facts = replace(FACTS, max_position_embeddings=positions)
    asked = EngineConfig(
        engines_here=engines, gpu_memory_utilization=0.9 / engines
    )  # as whoever starts them divides it
    for here, share in ((CPU, min(free_bytes // 4, 4 * GIB)), (CUDA, int(free_bytes * 0.9))):
        found = resolve(asked, facts, replace(here, free_bytes=free_bytes))
        assert engines * found.kv_tokens * TOKEN_BYTES <= max(share, free_bytes // 2)


@pytest.mark.parametrize("engines", [1, 2, 3, 8])
def test_on_a_cpu_each_engine_has_an_equal_part_of_what_the_kv_takes_at_most(engines: int) -> None:
    long = replace(FACTS, max_position_embeddings=1 << 21)  # so that no full context fits into half of what is free
    assert resolve(EngineConfig(engines_here=engines), long, CPU).pages == 4 * GIB // engines // (16 * TOKEN_BYTES)


def test_no_room_for_one_page_is_refused_with_the_bytes() -> None:
    with pytest.raises(ModelRefused, match=r"1000 bytes are free on cuda.*one page"):
        resolve(EngineConfig(), FACTS, replace(CUDA, free_bytes=1000))


def test_the_dtype_is_the_asked_one_or_the_checkpoints_or_float32() -> None:
    assert choose_dtype(EngineConfig(dtype="float16"), FACTS) == "float16"
    assert choose_dtype(EngineConfig(), replace(FACTS, dtype="bfloat16")) == "bfloat16"
    assert choose_dtype(EngineConfig(), replace(FACTS, dtype=None)) == "float32"
    with pytest.raises(ModelRefused, match=r"/models/m has dtype 'float8_e4m3fn'"):
        choose_dtype(EngineConfig(), replace(FACTS, dtype="float8_e4m3fn"))


def test_the_config_crosses_a_process_boundary_as_json() -> None:
    asked = EngineConfig(model="builtin:tiny", page_size=4, enable_prefix_caching=False)

    assert EngineConfig.from_json(json.loads(json.dumps(asked.to_json()))) == asked


def test_an_unknown_field_is_an_error_and_not_ignored() -> None:
    with pytest.raises(EngineError, match="page_sise"):
        EngineConfig.from_json({"model": "m", "page_sise": 4})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"device": "tpu"}, "device must be one of auto, cpu, cuda, not 'tpu'"),
        ({"dtype": "int8"}, "dtype must be one of"),
        ({"page_size": 0}, "page_size must be at least 1, not 0"),
        ({"max_model_len": -5}, "max_model_len must be at least 1, not -5"),
        ({"gpu_memory_utilization": 1.5}, r"gpu_memory_utilization must be in \(0, 1\], not 1.5"),
    ],
)
def test_values_that_make_no_sense_are_refused_at_once(asked: dict[str, object], message: str) -> None:
    with pytest.raises(EngineError, match=message):
        EngineConfig(**asked)  # type: ignore[arg-type]


def test_the_decided_config_prints_what_matters_and_what_is_not_done() -> None:
    text = str(resolve(EngineConfig(name="engine-7"), FACTS, CPU))

    for fact in (
        "engine-7",
        "/models/m",
        "llama, float32",
        "context 4096",
        "pages of 16",
        "[2, 5]",
        "typical_p",
    ):
        assert fact in text


def test_files_that_were_read_do_not_count_against_a_containers_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    gigabyte = 2**30
    told = {
        "memory.max": str(4 * gigabyte),
        "memory.current": str(3 * gigabyte),
        "memory.stat": f"anon {gigabyte}\ninactive_file {gigabyte}\nactive_file {gigabyte // 2}",
    }
    monkeypatch.setattr(machine, "_cgroup", lambda name: told.get(name, ""))
    assert machine.measure(torch.device("cpu")).free_bytes == 5 * gigabyte // 2
    told["memory.stat"] = ""
    assert machine.measure(torch.device("cpu")).free_bytes == gigabyte
