"""`python -m parrot_compat.gpu --fd N`: an engine over the connection that file descriptor N is one end of.

Whoever starts engines runs it (`core.engines.process`); it is of no use by hand.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from multiprocessing.connection import Connection

# Read by OpenMP when torch is loaded, so it comes before that. A step is dozens of short parallel parts: threads that
# sleep between two of them cost half its speed, threads that spin for long take the cores from the server and the app
# beside us. libgomp counts turns and these few are the best of both (DECISIONS.md); libiomp5 had no such middle.
os.environ.update(
    {}
    if {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & set(os.environ)
    else {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}
)

from .config import EngineConfig
from .engine import load_stepper
from .service import serve
from .stepper import Stepper


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m parrot_compat.gpu", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="an inherited socket, one end of a pair")
    return serve(Connection(parser.parse_args().fd), _load)


def _load(config: EngineConfig) -> Stepper:
    stepper = load_stepper(config)
    gc.collect()
    gc.freeze()  # a model and its libraries are very many objects, and stay: no collection need walk over them
    return stepper


if __name__ == "__main__":
    sys.exit(main())
