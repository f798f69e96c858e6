"""Our engine's process with recorded answers: `python -m recipes.benchmarks.replaying_engine --fd N`.

Every step is computed as always; where a row's seed has a recording, the drawn token is then the recorded one. It
takes the place of `python -m parrot_compat.gpu`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from multiprocessing.connection import Connection

from parrot_compat.gpu.batch import BatchRow, Drawn
from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.runner import ModelRunner
from parrot_compat.gpu.service import serve
from parrot_compat.gpu.stepper import Runner, Stepper
from parrot_compat.gpu.tokenizer import HuggingFaceTokenizer

from .recordings import Recordings

__all__ = ["ReplayingRunner", "main"]


class ReplayingRunner:
    def __init__(self, runner: Runner, recordings: Recordings) -> None:
        self.config = runner.config
        self._runner, self._recordings = runner, recordings

    def run(self, rows: Sequence[BatchRow], /) -> list[Drawn | None]:
        return [self._said(row, token) for row, token in zip(rows, self._runner.run(rows), strict=True)]

    def copy_pages(self, pairs: Sequence[tuple[int, int]], /) -> None:
        self._runner.copy_pages(pairs)

    def _said(self, row: BatchRow, token: Drawn | None) -> Drawn | None:
        if row.draw is None:
            return token
        recorded = self._recordings.token(row.draw.sampling.seed, row.draw.index)
        return token if recorded is None else recorded


def _load(config: EngineConfig) -> Stepper:
    runner = ReplayingRunner(ModelRunner(config), Recordings.of_environment())
    return Stepper(runner, HuggingFaceTokenizer(runner.config.path).text_stream)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--fd", type=int, required=True)
    return serve(Connection(parser.parse_args().fd), _load)


if __name__ == "__main__":
    raise SystemExit(main())
