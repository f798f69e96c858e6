"""`parrot`, and `python -m parrot_compat`: the command line, or how to install what it needs.

It knows nothing of the commands. The invariant: without the `server` extra it says so, in words.
"""

from __future__ import annotations

import sys

__all__ = ["main"]

_EXTRA = frozenset({"typer", "click", "rich", "fastapi", "starlette", "pydantic", "uvicorn"})


def main() -> None:
    try:
        from parrot_compat.cli import main as run

        run()
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _EXTRA:
            raise
        print(
            f"parrot: serving needs the 'server' extra ({error.name} is not installed). In a checkout, install it with:"
            "\n\n    pip install '.[server,gpu]'\n\n"
            "(README says how to get torch's small CPU build; without 'gpu' it can still serve in front of another "
            "server: parrot serve --upstream URL)",
            file=sys.stderr,
        )
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
