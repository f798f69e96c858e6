"""Our engine's process with recorded answers: `python -m recipes.benchmarks.replaying_engine --fd N`.

Every step is computed as always; where a row's seed has a recording, the drawn token is then the recorded one. It
takes the place of `python -m parrot_compat.gpu`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from parrot_compat.gpu.batch import BatchRow
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.drawing.drawn import Drawn
from parrot_compat.gpu.runner import ModelRunner
from parrot_compat.gpu.service import serve
from parrot_compat.gpu.stepper import Runner, Stepper
from parrot_compat.gpu.text.tokenizer import HuggingFaceTokenizer
from parrot_compat.gpu.wanted import Read

from .recordings import Recordings

__all__ = ["ReplayingRunner", "main"]


class ReplayingRunner:
    def __init__(self, runner: Runner, recordings: Recordings) -> None:
        # A step ahead would go on from the tokens that were drawn, not from those that are said.
        self.config = replace(runner.config, async_scheduling=False)
        self._runner, self._recordings = runner, recordings

    def launch(self, rows: Sequence[BatchRow], after: Any = None, /) -> Any:
        return rows, self._runner.launch(rows, after)

    def collect(self, flight: Any, /) -> list[Drawn | Read | None]:
        rows, drawn = flight[0], self._runner.collect(flight[1])
        return [self._said(row, token) for row, token in zip(rows, drawn, strict=True)]

    def copy_pages(self, pairs: Sequence[tuple[int, int]], /) -> None:
        self._runner.copy_pages(pairs)

    def check_device(self) -> None:
        self._runner.check_device()

    def _said(self, row: BatchRow, token: Drawn | Read | None) -> Drawn | Read | None:
        if row.draw is None or isinstance(token, Read):
            return token
        recorded = self._recordings.token(row.draw.sampling.seed, row.draw.index)
        return token if recorded is None else recorded


def _load(config: EngineConfig) -> Stepper:
    runner = ReplayingRunner(ModelRunner(config), Recordings.of_environment())
    return Stepper(runner, HuggingFaceTokenizer(runner.config.checkpoint.path).text_stream)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True)
    return serve(Connection(parser.parse_args().fd), _load)


if __name__ == "__main__":
    raise SystemExit(main())
