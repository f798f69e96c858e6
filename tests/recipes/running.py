"""Runs what a page shows as its reader would run it: in a process of its own.

The processes are forked from one that has imported the packages and done nothing else, so that what an example costs
is what it does.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

PRELOADED = [
    "pytest",
    "openai",
    "langchain_core.prompts",
    "langchain_core.vectorstores",
    "parrot_compat.integrations.langchain",
    "parrot_compat.integrations.application.functions",
    "parrot_compat.integrations.openai",
]
LIMIT_S = 280

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(PRELOADED)


@dataclass(frozen=True)
class Ran:
    returncode: int | None
    stdout: str
    stderr: str


def run(program: str, environment: Mapping[str, str], folder: Path) -> Ran:
    """`folder` is for what it says."""
    said = folder / "stdout", folder / "stderr"
    process = _forks.Process(target=_run, args=(program, dict(environment), said))
    process.start()
    process.join(LIMIT_S)
    if process.is_alive():
        process.kill()
        process.join()
    out, err = (path.read_text() for path in said)
    return Ran(process.exitcode, out, err)


def _run(program: str, environment: dict[str, str], said: tuple[Path, Path]) -> None:
    for descriptor, path in zip((1, 2), said, strict=True):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    os.environ.clear()
    os.environ.update(environment)
    code = 0
    try:
        main = sys.modules["__main__"] = ModuleType("__main__")  # where type hints are looked up
        exec(compile(program, "example", "exec", dont_inherit=True), main.__dict__)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
