"""Servers of recipes: what a recipe has started ends with it, and what is asked of them is what they have."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path

import pytest
from serving import ending_on_sigterm

from .terminating import is_running, terminated

RECIPES = Path(__file__).parents[2] / "recipes"
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="children are found in /proc")


@linux
def test_a_terminated_recipe_leaves_no_process_behind() -> None:
    program = """
import time
from serving import far_away, script
with far_away("http://127.0.0.1:9/v1", 1):  # a block in a block, as where a server is far away
    with script(["benchmarks/delay_proxy.py", "--to", "127.0.0.1:9"]):
        children = open("/proc/thread-self/children").read()
        print(children, flush=True)
        while True:
            time.sleep(0.05)
"""
    with terminated(program, RECIPES) as (code, children):
        assert code == 143
        assert len(children) == 2 and not [child for child in children if is_running(child)]


def test_the_handler_that_was_there_is_put_back() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with ending_on_sigterm(), ending_on_sigterm():
            assert signal.getsignal(signal.SIGTERM) is not signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGTERM, before)


def test_another_thread_changes_no_handler() -> None:
    seen = []

    def look() -> None:
        with ending_on_sigterm():
            seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [before]
