"""`python -m parrot_compat.gpu --fd N`: an engine over the connection that file descriptor N is one end of.

Whoever starts engines runs it (`core.engines.process`); it is of no use by hand.
"""

from __future__ import annotations

import argparse
import sys
from multiprocessing.connection import Connection

from .service import serve


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m parrot_compat.gpu", description=__doc__)
    parser.add_argument("--fd", type=int, required=True, help="an inherited socket, one end of a pair")
    return serve(Connection(parser.parse_args().fd))


if __name__ == "__main__":
    sys.exit(main())
