"""`parrot bench …`: the benchmarks of a checkout, `recipes.benchmarks`, from the command line.

It knows where a checkout has them and what they are called; each of them reads its own options.

The invariant: without a checkout the answer is one clear message and exit code 1.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import typer

__all__ = ["app", "engine", "manager", "suite"]

_OWN_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
_ROOT = Path(__file__).parents[2]

app = typer.Typer(
    name="bench",
    no_args_is_help=True,
    help="Benchmarks beside real vLLM, from a checkout. scripts/bench-setup installs vLLM; NAME --help says more.",
)


@app.command(context_settings=_OWN_OPTIONS)
def suite(context: typer.Context) -> None:
    """Ten app workloads in every lane: vLLM; ours plain, with the paper's policies, and with everything on."""
    _run("suite", context.args)


@app.command(context_settings=_OWN_OPTIONS)
def engine(context: typer.Context) -> None:
    """Our engine beside vLLM on one checkpoint: prefill, decode, first token, memory, roofline."""
    _run("engine", context.args)


@app.command(context_settings=_OWN_OPTIONS)
def manager(context: typer.Context) -> None:
    """The manager alone over a scripted engine: calls per second, time per graph event."""
    _run("manager", context.args)


def _run(name: str, arguments: list[str]) -> None:
    if not (_ROOT / "recipes" / "benchmarks" / f"{name}.py").is_file():
        typer.echo("parrot: the benchmarks are in the repository, not in the installed package: clone it.", err=True)
        raise typer.Exit(1)
    if str(_ROOT) not in sys.path:
        sys.path.insert(0, str(_ROOT))
    try:
        module = importlib.import_module(f"recipes.benchmarks.{name}")
    except ModuleNotFoundError as error:
        typer.echo(
            f"parrot: {error.name} is not installed: scripts/setup bench installs what benchmarks need.", err=True
        )
        raise typer.Exit(1) from None
    raise typer.Exit(module.main(arguments))
