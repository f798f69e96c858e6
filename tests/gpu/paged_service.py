"""`python -m tests.gpu.paged_service --fd N`: the engine's process around a runner of pages instead of a model.

The config of the first message chooses how it behaves: `model` is "paged", "slow" (a step lasts for ever) or
"broken" (loading raises).
"""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

from parrot_compat.gpu.config import EngineConfig
from parrot_compat.gpu.service import serve
from parrot_compat.gpu.stepper import Stepper
from tests.gpu.paged_runner import PagedRunner, paged_stepper, resolved


def load(config: EngineConfig) -> Stepper:
    if config.model == "broken":
        raise RuntimeError("out of luck")
    runner = PagedRunner(resolved(name=config.name))
    if config.model == "slow":
        runner.gate.clear()
    return paged_stepper(runner)


if __name__ == "__main__":
    sys.exit(serve(Connection(int(sys.argv[-1])), load))
