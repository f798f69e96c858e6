"""How far half precision is from float32: our engine's, and beside it that of transformers on the same weights.

    python -m recipes.benchmarks.drift builtin:tiny l25-fp32 --write

Each text is a prompt and what the float32 engine answers to it greedily. All its tokens are then scored by four models,
ours and transformers', each in float32 and in the other dtype. For each text: the share of places where the likeliest
token is not float32's, the mean difference of the log probability of the token that stands there, and the largest. It
measures numbers, not time: a busy machine is all right.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import AutoModelForCausalLM

from parrot_compat.core.call import ResolvedSampling, TokenLogprobs
from parrot_compat.core.engine import Chunk, ContextId, Generate
from parrot_compat.core.engine_front import Command
from parrot_compat.core.prompt import Tokens
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.runner import ModelRunner
from parrot_compat.gpu.stepper import Stepper
from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer

from .checkpoints import folder
from .measured import Measured, write

__all__ = ["main", "measured"]

Dtype = Literal["float32", "bfloat16", "float16"]
PROMPT, DRAWN, TEXTS = 64, 192, 12
_load: Any = AutoModelForCausalLM.from_pretrained  # transformers is typed in parts


@dataclass(frozen=True, slots=True)
class Scores:
    """Of one text's tokens but the first."""

    logprobs: tuple[float, ...]
    likeliest: tuple[int, ...]


def measured(model: str, dtype: Dtype, texts: int = TEXTS) -> list[Measured]:
    path = folder(model)
    exact = _Ours(path, "float32")
    asked = [exact.continued(_prompt(number, exact.vocabulary)) for number in range(texts)]
    ours = {kind: [_Ours(path, kind).scores(text) for text in asked] for kind in ("float32", dtype)}
    theirs = {kind: _of_transformers(path, kind, asked) for kind in ("float32", dtype)}
    made: list[Measured] = []
    for system, half, whole in (
        (f"ours {dtype}", ours[dtype], ours["float32"]),
        (f"transformers {dtype}", theirs[dtype], theirs["float32"]),
        ("ours float32, to transformers", ours["float32"], theirs["float32"]),
    ):
        pairs = list(zip(half, whole, strict=True))
        off = [[abs(a - b) for a, b in zip(one.logprobs, other.logprobs, strict=True)] for one, other in pairs]
        other_token = [
            statistics.fmean(a != b for a, b in zip(one.likeliest, other.likeliest, strict=True))
            for one, other in pairs
        ]
        made.append(Measured(model, system, "other_likeliest", "share", other_token))
        made.append(Measured(model, system, "logprob_mean_off", "nat", [statistics.fmean(text) for text in off]))
        made.append(Measured(model, system, "logprob_most_off", "nat", [max(text) for text in off]))
    return made


def _prompt(number: int, vocabulary: int) -> tuple[int, ...]:
    choose = random.Random(number)
    return tuple(choose.randrange(8, vocabulary) for _ in range(PROMPT))


class _Ours:
    """Our engine, step by step."""

    def __init__(self, path: Path, dtype: Dtype) -> None:
        runner = ModelRunner(EngineConfig(model=str(path), device="cpu", dtype=dtype, kv_tokens=1024, threads=1))
        self.vocabulary = runner.config.checkpoint.vocab_size
        self._stepper = Stepper(runner, HuggingFaceTokenizer(path).text_stream)
        self._asked = 0

    def continued(self, prompt: tuple[int, ...]) -> tuple[int, ...]:
        chunks = self._chunks(prompt, ResolvedSampling(max_tokens=DRAWN, ignore_eos=True))
        return prompt + tuple(token for chunk in chunks for token in chunk.tokens)

    def scores(self, text: tuple[int, ...]) -> Scores:
        told: list[TokenLogprobs] = []
        for chunk in self._chunks(text, ResolvedSampling(max_tokens=0, prompt_logprobs=1)):
            told += chunk.prompt_logprobs
        return Scores(tuple(one.logprob for one in told), tuple(one.top[0][0] for one in told))

    def _chunks(self, text: tuple[int, ...], sampling: ResolvedSampling) -> list[Chunk]:
        self._asked += 1
        verb = Generate(context=ContextId(self._asked), content=Tokens(text), sampling=sampling)
        commands, chunks = [Command(self._asked, verb)], []
        while commands or self._stepper.has_work:
            report, commands = self._stepper.step(commands), []
            chunks += [update.answer for update in report.updates if isinstance(update.answer, Chunk)]
        return chunks


def _of_transformers(path: Path, dtype: Dtype, texts: Sequence[tuple[int, ...]]) -> list[Scores]:
    model = _load(str(path), dtype=getattr(torch, dtype), attn_implementation="eager", local_files_only=True).eval()
    scores: list[Scores] = []
    for text in texts:
        ids = torch.tensor([text])
        with torch.inference_mode():
            logprobs = model(ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
        own = logprobs.gather(-1, ids[0, 1:, None]).squeeze(-1)
        scores.append(Scores(tuple(own.tolist()), tuple(logprobs.argmax(-1).tolist())))
    return scores


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["builtin:tiny"])
    parser.add_argument("--dtype", choices=("bfloat16", "float16"), default="bfloat16")
    parser.add_argument("--write", action="store_true", help="keep the measurements under results/")
    asked = parser.parse_args()
    made = [row for model in asked.models for row in measured(model, asked.dtype)]
    for row in made:
        print(f"{row.workload:14} {row.system:30} {row.metric:17} {statistics.median(row.values):.3g} {row.unit}")
    if asked.write:
        command = ["python", "-m", "recipes.benchmarks.drift", *asked.models, "--dtype", asked.dtype, "--write"]
        write(f"drift_{asked.dtype}", made, command=command)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
