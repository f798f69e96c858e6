"""Whole models on a device: our steps beside Hugging Face's text, beside the roofline, and beside vLLM.

Checkpoints have random weights and the shapes of real models; they are written once into a folder of the caller's.
The invariant: every system reads the same folder and the same prompts, and generates the same number of tokens.
"""

from __future__ import annotations

import gc
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.core.engine import Chunk, ContextId, Generate, Scope
from parrot_compat.core.engine_front import Command
from parrot_compat.core.prompt import Tokens
from parrot_compat.gpu.batch import BatchRow, Draw
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.models.plan import plan_decoder
from parrot_compat.gpu.runner import ModelRunner
from parrot_compat.gpu.stepper import Stepper

from .gpu_rows import GpuRow, Where, times_s

__all__ = ["SHAPES", "Load", "engine", "texts_against_transformers", "vllm"]

GREEDY = ResolvedSampling(max_tokens=1 << 20)
SHARD_BYTES = 2 << 30
WARM_STEPS, TIMED_STEPS = 8, 8
LANES: dict[str, dict[str, bool]] = {
    "ours": {"enforce_eager": False, "async_scheduling": True},
    "ours, no overlap": {"enforce_eager": False, "async_scheduling": False},
    "ours, no graphs": {"enforce_eager": True, "async_scheduling": True},
    "ours, neither": {"enforce_eager": True, "async_scheduling": False},
}
"""How steps are taken: without a device there are no graphs, and overlap only changes the order of the work."""
TIE = 1e-4
"""Where the two largest logits are nearer than this, either token may be drawn."""

_TINY = {
    "vocab_size": 512, "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 16, "intermediate_size": 128, "max_position_embeddings": 2048, "bos_token_id": 0, "eos_token_id": 511,
}  # fmt: skip
SHAPES: dict[str, dict[str, Any]] = {
    "tiny-llama": {"model_type": "llama", **_TINY},
    "tiny-qwen3": {"model_type": "qwen3", **_TINY},
    "tiny-mistral": {"model_type": "mistral", "sliding_window": 24, **_TINY},
    "tiny-gemma2": {"model_type": "gemma2", "sliding_window": 24, "query_pre_attn_scalar": 16, **_TINY},
    "qwen3-0.6b": {
        "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 3072,
        "max_position_embeddings": 40960, "rope_theta": 1e6, "tie_word_embeddings": True, "eos_token_id": 151645,
    },
    "llama-8b": {
        "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
        "max_position_embeddings": 131072, "rope_theta": 5e5, "eos_token_id": 128001, "bos_token_id": 128000,
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What `engine` and `vllm` are given to do."""

    rows: tuple[int, ...]
    context: int
    prompts: tuple[int, ...]
    sequences: int
    """Of the mixed run, each with lengths of prompt and output drawn evenly from `lengths`."""
    lengths: tuple[int, int]
    tries: int

    def mixed(self, vocabulary: int) -> list[tuple[list[int], int]]:
        drawn = random.Random(0)
        low, high = self.lengths
        return [
            ([drawn.randrange(3, vocabulary - 8) for _ in range(drawn.randint(low, high))], drawn.randint(low, high))
            for _ in range(self.sequences)
        ]

    @property
    def kv_tokens(self) -> int:
        return max(self.sequences * 2 * self.lengths[1], max(self.rows) * (self.context + 64), *self.prompts) + 256


def made(name: str, dtype: torch.dtype, under: Path, device: torch.device) -> Path:
    """The folder of a shape, written if it is not there."""
    place = under / f"{name}-{str(dtype).removeprefix('torch.')}"
    if (place / "model.safetensors.index.json").exists():
        return place
    place.mkdir(parents=True, exist_ok=True)
    stated = dict(SHAPES[name])
    config = AutoConfig.for_model(stated.pop("model_type"), **stated, dtype=str(dtype).removeprefix("torch."))
    config.save_pretrained(place)
    plan = plan_decoder(config)
    assert plan is not None
    generator = torch.Generator(device).manual_seed(0)
    shard: dict[str, torch.Tensor] = {}
    index: dict[str, str] = {}
    held = 0
    for tensor, shape in plan.tensors():
        noise = torch.randn(shape, generator=generator, device=device)
        weight = 1.0 + 0.1 * noise if len(shape) == 1 and "norm" in tensor else noise * 1.5 / shape[-1] ** 0.5
        shard[tensor] = weight.to("cpu", dtype)
        held += shard[tensor].nbytes
        if held > SHARD_BYTES:
            _save(shard, index, place)
            shard, held = {}, 0
    _save(shard, index, place)
    (place / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return place


def _save(shard: dict[str, torch.Tensor], index: dict[str, str], place: Path) -> None:
    file = f"model-{len(set(index.values())):05}.safetensors"
    save_file(shard, place / file, metadata={"format": "pt"})
    index |= dict.fromkeys(shard, file)


def _runner(place: Path, device: torch.device, tokens: int, **asked: Any) -> ModelRunner:
    kind = "cuda" if device.type == "cuda" else "cpu"
    return ModelRunner(EngineConfig(model=str(place), device=kind, kv_tokens=tokens, page_size=16, **asked))  # type: ignore[arg-type]


# ---- right -------------------------------------------------------------------------------------------------


def texts_against_transformers(
    names: Sequence[str], tokens: int, under: Path, device: torch.device, where: Where
) -> Iterator[GpuRow]:
    """Greedy texts in float32. Differences where the two best logits are no tie are errors, and raised."""
    for name in names:
        place = made(name, torch.float32, under, device)
        drawn = random.Random(name)
        prompts = [[drawn.randrange(3, 500) for _ in range(length)] for length in (3, 17, 40)]
        runner = _runner(place, device, 1024)
        ours = answers(runner, [(prompt, tokens) for prompt in prompts])
        eager = answers(runner, [(prompt, tokens) for prompt in prompts], enforce_eager=True, async_scheduling=False)
        if ours != eager:
            raise AssertionError(f"{name}: CUDA graphs and overlap change a text")
        del runner
        # "eager" is the only one that is right for all: older releases leave Gemma 2's soft cap out of "sdpa".
        model = AutoModelForCausalLM.from_pretrained(place, dtype=torch.float32, attn_implementation="eager")
        model = model.to(device).eval()
        ties = 0
        for prompt, mine in zip(prompts, ours, strict=True):
            ties += _differs(model, prompt, mine, name)
        yield GpuRow.of(where, "exactness", f"{name} float32 greedy", "ours", "texts that part at a tie", "1", [ties])


def _differs(model: Any, prompt: list[int], mine: list[int], name: str) -> bool:
    """Whether `mine` leaves what the model would write, at a tie."""
    with torch.inference_mode():
        ids = torch.tensor([prompt + mine], device=model.device)
        logits = model(ids).logits[0, len(prompt) - 1 : -1].double()
    best = logits.argmax(-1).tolist()
    if best == mine:
        return False
    at = next(number for number, (theirs, own) in enumerate(zip(best, mine, strict=True)) if theirs != own)
    gap = (logits[at, best[at]] - logits[at, mine[at]]).item()
    if gap > TIE:
        raise AssertionError(f"{name}: token {at} is {mine[at]}, transformers says {best[at]}, {gap} above it")
    return True


class Silent:
    """A text stream for tokens that nobody reads."""

    stopped = False

    def push(self, token_ids: Sequence[int]) -> str:
        return ""

    def flush(self) -> str:
        return ""


class Steps:
    """A runner stepped by the engine's own stepper, in this thread: scheduling, pages and prefixes are the engine's."""

    def __init__(self, runner: ModelRunner, **changed: bool) -> None:
        """`changed`: of the resolved config: how the steps are to be taken."""
        runner.config = replace(runner.config, **changed)
        self._stepper = Stepper(runner, lambda stop: Silent())
        self.step_tokens = runner.config.step_tokens
        self.texts: dict[int, list[int]] = {}

    def ask(self, asked: Sequence[tuple[list[int], int]], group: str | None = None) -> None:
        """(prompt, output tokens), greedy, all at once."""
        commands = []
        for number, (prompt, out) in enumerate(asked, len(self.texts) + 1):
            self.texts[number] = []
            sampling = ResolvedSampling(max_tokens=out, ignore_eos=True)
            verb = Generate(context=ContextId(number), content=Tokens(tuple(prompt)), sampling=sampling,
                            scope=Scope(group=group))  # fmt: skip
            commands.append(Command(number, verb))
        self._take(commands)

    def step(self) -> bool:
        """One step; whether there is more to do."""
        self._take(())
        return self._stepper.has_work

    def run(self) -> list[list[int]]:
        while self.step():
            pass
        return list(self.texts.values())

    def _take(self, commands: Sequence[Command]) -> None:
        for update in self._stepper.step(commands).updates:
            if isinstance(update.answer, Exception):
                raise update.answer
            assert isinstance(update.answer, Chunk)
            self.texts[update.command] += update.answer.tokens


def answers(runner: ModelRunner, asked: Sequence[tuple[list[int], int]], **changed: bool) -> list[list[int]]:
    steps = Steps(runner, **changed)
    steps.ask(asked)
    return steps.run()


# ---- fast --------------------------------------------------------------------------------------------------


def engine(
    names: Sequence[str], load: Load, limits: tuple[float, float], under: Path, device: torch.device, where: Where
) -> Iterator[GpuRow]:
    """The runner's steps: the engine without scheduler and text. `limits`: bytes/s and flop/s of the device."""
    row = partial(GpuRow.of, where, "engine")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    for name in names:
        place = made(name, dtype, under, device)
        runner = _runner(place, device, load.kv_tokens, max_model_len=max(load.context, *load.prompts) + 1024)
        config = runner.config
        weights = _product_bytes(place, dtype)
        token_bytes = 2 * config.layers * config.kv_heads * config.head_dim * dtype.itemsize
        for rows, (system, changed) in product(load.rows, LANES.items()):
            taken = decode_s(Steps(runner, **changed), rows, load)
            case = f"{name} decode {rows} rows {load.context} context"
            yield row(case, system, "rate", "tokens/s", [rows / t for t in taken])
            read = weights + rows * load.context * token_bytes
            yield row(case, system, "share of memory rate", "1", [read / t / limits[0] for t in taken])
        for prompt in load.prompts:
            ids = [number % 500 + 3 for number in range(prompt)]
            batch = [BatchRow(tokens=ids, start=0, pages=range(-(-prompt // 16)), draw=Draw(sampling=GREEDY, index=0))]
            taken = times_s(partial(runner.run, batch), device, load.tries)
            work = 2 * prompt * weights / dtype.itemsize  # the head's, for one token only, is a few percent of it
            yield row(f"{name} prefill {prompt}", "ours", "rate", "tokens/s", [prompt / t for t in taken])
            yield row(
                f"{name} prefill {prompt}", "ours", "share of products", "1", [work / t / limits[1] for t in taken]
            )
        asked = load.mixed(config.vocab_size)
        for system, changed in LANES.items():
            taken = times_s(partial(answers, runner, asked, **changed), device, 1)
            produced = sum(out for _, out in asked)
            yield row(f"{name} {len(asked)} sequences", system, "output rate", "tokens/s", [produced / taken[0]])
        del runner
        _give_back(device)


def decode_s(steps: Steps, rows: int, load: Load) -> list[float]:
    """Seconds of a step in which `rows` texts of about `context` tokens draw, of each of the tries."""
    drawn = random.Random(rows)
    # The first draw while the prompts of the last are still computed.
    out = WARM_STEPS + load.tries * TIMED_STEPS + 2 + -(-rows * load.context // steps.step_tokens)
    steps.ask([([drawn.randrange(3, 500) for _ in range(load.context - out // 2)], out) for _ in range(rows)])
    while not all(steps.texts.values()):
        steps.step()
    found = []
    for number in range(load.tries + 1):
        count = TIMED_STEPS if number else WARM_STEPS
        before, began = sum(map(len, steps.texts.values())), time.perf_counter()
        for _ in range(count):
            steps.step()
        taken = time.perf_counter() - began
        assert sum(map(len, steps.texts.values())) - before == count * rows
        if number:
            found.append(taken / count)
    steps.run()
    return found


def _product_bytes(place: Path, dtype: torch.dtype) -> int:
    """Of the weights that a step multiplies with: all but the embedding, unless that is the head as well."""
    plan = plan_decoder(AutoConfig.from_pretrained(place))
    assert plan is not None
    sizes = {name: math.prod(shape) for name, shape in plan.tensors()}
    unused = 0 if plan.is_tied else sizes["model.embed_tokens.weight"]
    return (sum(sizes.values()) - unused) * dtype.itemsize


def vllm(names: Sequence[str], load: Load, under: Path, device: torch.device, where: Where) -> Iterator[GpuRow]:
    """The mixed run through vLLM's own engine in this process, its defaults, prefix caching on."""
    if find_spec("vllm") is None:
        print("vllm is not installed here: its part is left out")
        return
    from vllm import LLM, SamplingParams

    for name in names:
        place = made(name, torch.bfloat16 if device.type == "cuda" else torch.float32, under, device)
        model = LLM(
            str(place), skip_tokenizer_init=True, enable_prefix_caching=True, max_model_len=2 * load.lengths[1] + 64
        )
        asked = load.mixed(AutoConfig.from_pretrained(place).vocab_size)
        prompts = [{"prompt_token_ids": prompt} for prompt, _ in asked]
        sampling = [
            SamplingParams(temperature=0, max_tokens=out, ignore_eos=True, detokenize=False) for _, out in asked
        ]
        model.generate(prompts[:2], sampling[:2], use_tqdm=False)
        taken = times_s(partial(model.generate, prompts, sampling, use_tqdm=False), device, 1)
        produced = sum(out for _, out in asked)
        case = f"{name} {len(asked)} sequences"
        yield GpuRow.of(where, "vllm", case, "vllm", "output rate", "tokens/s", [produced / t for t in taken])
        del model
        _give_back(device)


def _give_back(device: torch.device) -> None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
