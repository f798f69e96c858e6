"""`parrot serve` over engines that give recorded answers: `python -m recipes.benchmarks.replaying_server serve …`."""

from __future__ import annotations

from parrot_compat import cli, compose

__all__: list[str] = []

if __name__ == "__main__":
    compose.ENGINE_PROGRAM = "recipes.benchmarks.replaying_engine"
    cli.main()
