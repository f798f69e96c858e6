"""`python -m tests.gpu.together_service --fd N`: the engine's process, which begins when `ROWS` commands have come.

The model is a real one. However slowly the commands travel, all of them are in the first step."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection

from parrot_compat.core.engine_front import Command, StepReport
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.runner import ModelRunner
from parrot_compat.gpu.service import serve
from parrot_compat.gpu.stepper import Stepper
from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer

__all__ = ["ROWS"]

ROWS = 5


class Together(Stepper):
    _first: tuple[Command, ...] = ()

    def step(self, commands: Sequence[Command]) -> StepReport:
        if len(self._first) == ROWS:
            return super().step(commands)
        self._first += tuple(commands)
        return super().step(self._first if len(self._first) == ROWS else ())


def load(config: EngineConfig) -> Stepper:
    runner = ModelRunner(config)
    return Together(runner, HuggingFaceTokenizer(runner.config.checkpoint.path).text_stream)


if __name__ == "__main__":
    sys.exit(serve(Connection(int(sys.argv[-1])), load))
