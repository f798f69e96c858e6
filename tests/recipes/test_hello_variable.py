from __future__ import annotations

import asyncio
import io
import re
import time
from concurrent.futures import ThreadPoolExecutor

import hello_variable
import pytest
from rich.console import Console

from parrot_compat import connect

from ..server.live import live


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert hello_variable.main(list(arguments)) == 0
    return capsys.readouterr().out


def panel(output: str, title: str) -> str:
    _, _, rest = output.partition(f"╭─ {title} ")
    return rest.partition("╰")[0]


def test_the_second_function_reads_the_variable_and_both_ways_of_running_say_the_same(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    served = shown(capsys, "--base-url", url)
    embedded = shown(capsys)
    for output in (served, embedded):
        assert "write_code ─── write_test" in output
        assert re.search(r"^ ?write_test +\w+", output, re.MULTILINE)
        between = re.search(r"the second began (.+) ms after the first had ended", output)
        assert between is not None and float(between[1]) >= 0
    for title in ("code", "tests"):
        assert panel(served, title) and panel(served, title) == panel(embedded, title)
    assert panel(served, "code") != panel(served, "tests")


def test_what_the_app_waits_for_is_quick(url: str) -> None:
    console = Console(file=io.StringIO(), width=120)
    with connect(url) as made, made.open_session() as session, ThreadPoolExecutor(1) as app:
        task = session.variable(name="task")  # nothing runs before it is known that the app waits
        ran = app.submit(hello_variable.run, session, task, None, console)
        while [call["objective"] for call in session.describe()["calls"]][1:] != ["latency"]:
            assert not ran.done()
            time.sleep(0.005)
        task.set("sort a list of words by length")
        ran.result(280)
    assert re.search(r"^ ?write_test +latency", console.file.getvalue(), re.MULTILINE)


def test_round_trips_are_counted_where_the_server_is_far_away(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    output = shown(capsys, "--base-url", url, "--rtt-ms", "300", "--task", "count words")
    paid = re.search(r"so (.+) round trips of 300 ms were paid", output)
    assert paid is not None and float(paid[1]) >= 1.0


async def test_a_server_through_a_proxy_that_is_no_way_away_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    async with live() as server:
        arguments = ["--base-url", f"{server.url}/v1", "--rtt-ms", "0"]
        assert await asyncio.to_thread(hello_variable.main, arguments) == 0
    output = capsys.readouterr().out
    assert "the app waited" in output and "round trips" not in output


async def test_the_model_that_is_named_is_asked_of_a_server_that_has_several(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async with live({"": "said by the first"}, more_models=["another"]) as server:
        arguments = ["--base-url", f"{server.url}/v1", "--model", "another"]
        assert await asyncio.to_thread(hello_variable.main, arguments) == 0
    output = capsys.readouterr().out
    assert "another" in panel(output, "code") and "another" in panel(output, "tests")


def test_a_server_that_is_not_there_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    assert hello_variable.main(["--base-url", "http://127.0.0.1:9/v1"]) == 1
    assert capsys.readouterr().err.startswith("no answer from http://127.0.0.1:9/v1/parrot/sessions")
