"""`python -m parrot_compat.gpu --fd N`: an engine over the connection that file descriptor N is one end of.

Whoever starts engines runs it (`core.engines.process`); it is of no use by hand.
"""

from __future__ import annotations

import argparse
import os
import sys
from multiprocessing.connection import Connection

# Read by OpenMP when torch is loaded, so it comes before that. Threads that spin between two small operations take
# the cores from the server and the app beside us: on a busy 2-core machine a step was 2-30 times slower with it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from .service import serve


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m parrot_compat.gpu", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="an inherited socket, one end of a pair")
    return serve(Connection(parser.parse_args().fd))


if __name__ == "__main__":
    sys.exit(main())
