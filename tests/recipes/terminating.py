"""Programs that are terminated, to see what of theirs goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def terminated(program: str, folder: Path) -> Iterator[tuple[int, list[int]]]:
    """A Python program whose first line names its children, after SIGTERM: its exit code, and these. What is left of
    them is killed behind the block."""
    environment = os.environ | {"PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}".rstrip(":")}
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    )
    children: list[int] = []
    try:
        assert process.stdout is not None
        children = [int(pid) for pid in process.stdout.readline().split()]
        assert children and all(map(is_running, children))
        process.terminate()
        yield process.wait(120), children
    finally:
        process.kill()
        process.communicate()
        for child in children:
            with suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
