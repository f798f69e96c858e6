"""Servers of recipes: what a recipe has started ends with it, and what is asked of them is what they have."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import batch_folder
import call_log
import compare
import debate
import openai_sdk
import pytest
import two_line_diff
from rich.console import Console
from serving import add_server_options, ending_on_sigterm, served_model, server

from ..server.live import live
from .terminating import is_running, terminated

RUN: dict[ModuleType, tuple[str, ...]] = {
    two_line_diff: (),
    batch_folder: ("--characters", "100"),
    debate: ("--debaters", "1", "--rounds", "1", "--brief-characters", "20"),
}
"""With prompts that any of the servers here has room for."""
RECIPES = Path(__file__).parents[2] / "recipes"
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="children are found in /proc")


async def test_a_recipe_asks_the_model_that_its_server_has(capsys: pytest.CaptureFixture[str]) -> None:
    async with live({"": "said by the first"}, more_models=["another"]) as server:
        url = f"{server.url}/v1"
        assert await asyncio.to_thread(served_model, url) == "org/scripted"
        assert await asyncio.to_thread(served_model, url, "another") == "another"
        for recipe, options in RUN.items():
            assert await asyncio.to_thread(recipe.main, ["--base-url", url, *options]) == 0
            assert "builtin:tiny" not in capsys.readouterr().out
            arguments = ["--base-url", url, "--model", "another", *options]
            assert await asyncio.to_thread(recipe.main, arguments) == 0
            assert "another" in capsys.readouterr().out


@pytest.mark.parametrize("recipe", [debate, two_line_diff, batch_folder], ids=lambda recipe: recipe.__name__)
def test_a_server_that_is_not_there_is_one_message(recipe: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        recipe.main(["--base-url", "http://127.0.0.1:9/v1"])
    assert ended.value.code == 1
    assert "http://127.0.0.1:9/v1" in capsys.readouterr().err


async def test_recipes_take_a_variable_that_is_empty_as_not_set(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PARROT_BASE_URL", "")
    monkeypatch.setenv("PARROT_API_KEY", "")
    parser = argparse.ArgumentParser()
    add_server_options(parser)
    assert parser.parse_args([]).base_url is None
    async with live({"": "said without a key"}) as server:
        for recipe in (two_line_diff, openai_sdk):
            assert await asyncio.to_thread(recipe.main, ["--base-url", f"{server.url}/v1"]) == 0
            assert "said without a key" in capsys.readouterr().out


async def test_an_existing_app_sends_the_key_that_the_environment_has(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PARROT_API_KEY", "a secret")
    async with live({"": "said to who has the key"}, keys=["a secret"]) as server:
        assert await asyncio.to_thread(two_line_diff.main, ["--base-url", f"{server.url}/v1"]) == 0
    assert "said to who has the key" in capsys.readouterr().out


def test_a_server_of_its_own_has_none_of_the_settings_of_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("transformers")
    for name, value in (("HOST", "0.0.0.0"), ("UPSTREAM", "http://127.0.0.1:9/v1"), ("API_KEYS", "a secret")):
        monkeypatch.setenv(f"PARROT_{name}", value)
    with pytest.raises(SystemExit), server(None, "./no-such-folder"):
        raise AssertionError("it runs")
    said = capsys.readouterr().err
    assert "there is no folder ./no-such-folder" in said and "127.0.0.1:9" not in said


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


def test_a_forked_child_of_a_recipe_ends_as_any_process_does() -> None:
    if not hasattr(os, "fork"):
        pytest.skip("this platform does not fork")
    ready, tell = os.pipe()
    with ending_on_sigterm():
        child = os.fork()
        if child == 0:
            with suppress(BaseException):  # an exception here would be the recipe's own end, in the child
                os.write(tell, b"!")
                time.sleep(60)
            os._exit(1)
        os.read(ready, 1)  # Python forgets signals that come amid a fork
        os.kill(child, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
    os.close(ready)
    os.close(tell)


@pytest.mark.parametrize("arguments", [["--limit", "0"], ["--rounds", "0"], ["--rounds", "-1"]])
def test_nothing_is_started_for_none_of_a_thing(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        compare.main(arguments)
    assert ended.value.code == 2
    assert "at least 1 is needed" in capsys.readouterr().err


def test_what_is_said_of_a_model_is_of_the_one_that_answered() -> None:
    console = Console(record=True, width=200)
    call_log.random_weights(console, {"builtin:random"})
    assert "builtin:tiny" not in (said := console.export_text()) and "random weights" in said
    call_log.random_weights(console, {"builtin:tiny"})
    assert "7.5 M parameters" in console.export_text()
