"""What the host adds to a decode step of sixteen rows: all of it that is no arithmetic, in processor time.

    python -m recipes.benchmarks.host builtin:tiny l25-fp32 --write

Sixteen greedy answers are drawn beside each other by one thread. `host`: planning, pages, batch, draw and chunks (the
step less its forward pass) and the report, pickled as the engine's process does it. `dispatch`: the forward pass less
what happens inside the kernels. All is processor time, so a busy machine is all right.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from parrot_compat.core.call import ResolvedSampling
from parrot_compat.core.engine import ContextId, Generate
from parrot_compat.core.engine_front import Command
from parrot_compat.core.prompt import Tokens
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.models.decoder import FastDecoder
from parrot_compat.gpu.runner import ModelRunner
from parrot_compat.gpu.stepper import Stepper
from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer

from .checkpoints import folder
from .measured import Measured, command_of_models

__all__ = ["main", "measured"]

ROWS, PROMPT, TOKENS = 16, 64, 240
WARM = 8
"""Steps in which prompts are computed."""


class _Spent:
    """Processor seconds inside functions, by name, in the step at hand."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **named: Any) -> Any:
            began = time.thread_time()
            result = function(*given, **named)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.thread_time() - began
            return result

        return called


def measured(model: str, tokens: int = TOKENS) -> list[Measured]:
    path = folder(model)
    config = EngineConfig(model=str(path), device="cpu", threads=1, kv_tokens=ROWS * (PROMPT + tokens + 16))
    runner, tokenizer = ModelRunner(config), HuggingFaceTokenizer(path)
    decoder, spent = runner._decoder, _Spent()
    assert isinstance(decoder, FastDecoder) and decoder._all_layers is not None, "the C++ kernels are not there"
    stepper = Stepper(runner, tokenizer.text_stream)
    commands = [Command(row + 1, _asked(row, tokens, runner.config.checkpoint.vocab_size)) for row in range(ROWS)]
    host: list[float] = []
    dispatch: list[float] = []
    with ExitStack() as patches:
        head: Any = decoder._head
        for name, owner, method in (
            ("forward", decoder, "logits"),
            ("kernels", decoder._all_layers, "_function"),
            ("kernels", head.few, "_function"),
        ):
            patches.enter_context(patch.object(owner, method, spent.timed(name, getattr(owner, method))))
        while commands or stepper.has_work:
            spent.seconds = {"forward": 0.0, "kernels": 0.0}
            began = time.thread_time()
            pickle.dumps(stepper.step(commands), pickle.HIGHEST_PROTOCOL)
            step_s = time.thread_time() - began
            host.append(1e3 * (step_s - spent.seconds["forward"]))
            dispatch.append(1e3 * (spent.seconds["forward"] - spent.seconds["kernels"]))
            commands = []
    workload = f"{model}, {ROWS} rows, {runner.config.checkpoint.vocab_size} tokens"
    return [
        Measured(workload, "engine", name, "ms", values[WARM:-1])
        for name, values in (("host", host), ("dispatch", dispatch))
    ]


def _asked(row: int, tokens: int, vocabulary: int) -> Generate:
    ids = tuple((7 * at * at + 31 * row + at) % vocabulary for at in range(PROMPT))
    sampling = ResolvedSampling(max_tokens=tokens, ignore_eos=True)
    return Generate(context=ContextId(row + 1), content=Tokens(ids), sampling=sampling)


def main() -> int:
    return command_of_models("host", __doc__, measured)


if __name__ == "__main__":
    raise SystemExit(main())
