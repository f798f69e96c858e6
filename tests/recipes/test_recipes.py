"""Every recipe, run as a user runs it, against a real server with the built-in model."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import chain_summary
import compare
import debate
import map_reduce
import multi_agent_code
import openai
import openai_sdk
import pytest
from call_log import CallLog, LoggedCall
from langchain_core.runnables import RunnableLambda
from plan_view import Plans
from rich.console import Console
from serving import far_away, server

from parrot_compat import connect


def rows(shown: str, name: str) -> list[dict[str, str]]:
    """Rows of the printed tables whose first cell begins with `name`, by the titles of their columns."""
    found: list[dict[str, str]] = []
    titles: list[str] = []
    for line in shown.splitlines():
        cells = re.split(r" {2,}", line.strip())
        if cells[0] in ("call", "planner"):
            titles = cells
        elif len(cells) == len(titles) > 1 and cells[0].split(" ")[0] == name:
            found.append(dict(zip(titles, cells, strict=True)))
    return found


def names(found: list[dict[str, str]]) -> list[str]:
    return [row["call"] for row in found]


def test_map_reduce_shows_its_graph_every_call_and_a_summary(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert map_reduce.main(["--base-url", url, "--limit", "3", "--part-tokens", "120", "--max-tokens", "6"]) == 0
    shown = capsys.readouterr().out
    maps, reduces = rows(shown, "map"), rows(shown, "reduce")
    assert "map 1 ─┬─ reduce\nmap 2 ─┤\nmap 3 ─┘\n" in shown
    assert names(maps) == ["map 1", "map 2", "map 3"] and len(reduces) == 1
    for row in maps + reduces:
        assert float(row["submitted"]) <= float(row["started"]) <= float(row["finished"])
        assert row["answer"] in ("pushed", "claimed")
    assert float(reduces[0]["submitted"]) >= max(float(row["finished"]) for row in maps)
    assert all(0 < int(row["prompt"]) <= 200 and 0 < int(row["output"]) <= 6 for row in maps)
    assert "summary" in shown and "the first 3 of" in shown
    assert "7.5 M parameters" in shown


def test_without_the_planner_every_call_is_a_request(
    url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARROT_PLANNING", "off")
    assert map_reduce.main(["--base-url", url, "--limit", "2", "--part-tokens", "120", "--max-tokens", "3"]) == 0
    shown = capsys.readouterr().out
    assert [row["answer"] for row in rows(shown, "map") + rows(shown, "reduce")] == ["direct"] * 3
    assert "\nmap 1\nmap 2\nreduce\n" in shown


def test_the_instruction_that_maps_share_is_computed_once(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--base-url", url, "--limit", "2", "--part-tokens", "150", "--max-tokens", "2"]
    for _ in range(2):
        assert map_reduce.main(arguments) == 0
    again = rows(capsys.readouterr().out, "map")[-2:]
    assert all(0 < int(row["cached"]) < int(row["prompt"]) for row in again)


def test_map_reduce_reads_a_file(url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a text.txt"
    file.write_text("Parrots repeat what they hear.\n\nServers answer what they are asked.\n")
    assert map_reduce.main([str(file), "--base-url", url, "--max-tokens", "4"]) == 0
    shown = capsys.readouterr().out
    assert "in 1 part\n" in shown
    assert len(rows(shown, "map")) == 1


def test_chain_summary_reads_the_parts_one_after_the_other(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert chain_summary.main(["--base-url", url, "--limit", "3", "--part-tokens", "120", "--max-tokens", "5"]) == 0
    shown = capsys.readouterr().out
    calls = rows(shown, "begin") + rows(shown, "refine")
    assert names(calls) == ["begin", "refine 1", "refine 2"]
    assert "begin ─── refine 1 ─── refine 2\n" in shown
    assert all(row["answer"] in ("pushed", "claimed") for row in calls)
    for before, after in itertools.pairwise(calls):
        assert float(before["finished"]) <= float(after["submitted"])
    answer = shown.partition("summary\n")[2].partition("begin")[0]
    assert answer.strip()


def test_the_team_reviews_all_files_and_revises_each(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--base-url", url, "--files", "2", "--rounds", "2", "--max-tokens", "4"]
    assert multi_agent_code.main(arguments) == 0
    shown = capsys.readouterr().out
    # calls of one name are numbered as they were made, which within a stage is as its threads got to run
    assert """
architect ─┬─ coder # ─┬─ reviewer # ─── reviser # ─┬─ reviewer # ─── reviser #
           └─ coder # ─┴─ reviewer # ─── reviser # ─┴─ reviewer # ─── reviser #
""" in re.sub(r"\d", "#", f"\n{shown}")
    assert set(names(rows(shown, "reviewer"))) == {f"reviewer {number}" for number in (1, 2, 3, 4)}
    found = [row for role in ("architect", "coder", "reviewer", "reviser") for row in rows(shown, role)]
    assert len(found) == 11 and {row["answer"] for row in found} == {"pushed"}
    assert "file 1" in shown and "file 2" in shown and "file 3" not in shown


def test_the_debaters_of_a_round_hear_all_that_was_said_before(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [
        "--base-url",
        url,
        "--debaters",
        "2",
        "--rounds",
        "2",
        "--max-tokens",
        "4",
        "--brief-characters",
        "300",
    ]
    assert debate.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "speech 1 ─┬─ speech 3 ─┬─ verdict\nspeech 2 ─┴─ speech 4 ─┘\n" in shown
    first, second = rows(shown, "speech")[:2], rows(shown, "speech")[2:]
    assert all(float(late["ready"]) >= float(early["finished"]) for late in second for early in first)
    assert all(int(late["prompt"]) > int(early["prompt"]) for late in second for early in first)
    (verdict,) = rows(shown, "verdict")
    assert int(verdict["output"]) == 4


def test_the_verdict_of_a_debate_is_what_is_waited_for(url: str) -> None:
    with connect(url) as application, application.open_session() as session, ThreadPoolExecutor(1) as app:
        motion = session.variable(name="motion")  # nothing runs before it is known that somebody waits
        verdict = debate.debate(session, motion, "A brief.", debaters=2, rounds=1, max_tokens=4)
        text = app.submit(verdict.get)
        while [call["objective"] for call in session.describe()["calls"]][2:] != ["latency"]:
            assert not text.done()
            time.sleep(0.005)
        motion.set("Tabs are better than spaces.")
        assert text.result(280)


def test_comparing_shows_graphs_calls_times_and_that_answers_are_equal(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "text"
    file.write_text(
        "\n\n".join(f"Parrot {number} repeats what parrot {number - 1} has said." for number in range(1, 20))
    )
    sizes = ["--limit", "3", "--notes", "2", "--part-tokens", "40", "--max-tokens", "4", "--summary-tokens", "8"]
    assert compare.main([str(file), "--base-url", url, *sizes, "--rtt-ms", "30", "--rounds", "1"]) == 0
    shown = capsys.readouterr().out
    assert "begin ─── refine 1 ─── refine 2\n" in shown and "map 1 ─┬─ reduce\n" in shown
    came = {planner: [row["how the answers came"] for row in rows(shown, planner)] for planner in ("off", "on")}
    assert came["off"] == ["3 direct", "4 direct", "4 direct"]
    assert came["on"] == ["1 plan: 3 pushed", "1 plan: 4 pushed", "1 plan: 4 pushed"]
    for row in rows(shown, "off"):  # the way there and back is not free, whatever the machine
        assert float(row["round 1"].removesuffix(" s")) >= 0.03
    assert shown.count("answers are equal in all 2 runs") == 3
    assert "2 of 2 notes were read and answered right" in shown
    assert "summary" in shown


def run_that_said(*answers: str) -> compare.Run:
    log = CallLog(len(answers), Console())
    for number, answer in enumerate(answers):
        log.calls[uuid4()] = LoggedCall("call", 0.0, prompt=f"human: question {number}", text=answer)
    return compare.Run(1.0, answers[-1], log, Plans())


def test_answers_that_are_not_equal_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    app = compare.App("app", "", RunnableLambda(str), {}, 2)
    compared = compare.Compared(
        app, [run_that_said("yes", "a\x1bb")], [run_that_said("yes", "c"), run_that_said("yes", "c")]
    )
    assert compared.differences() == [("human: question 1", "a\x1bb"), ("human: question 1", "c")]
    compare.show(Console(), compared)
    shown = capsys.readouterr().out
    assert "not in all runs" in shown and "'c'" in shown and "\x1b" not in shown
    assert "equal" not in shown


def test_a_server_far_away_is_the_same_server(url: str) -> None:
    with far_away(url, 1) as there:
        assert there != url
        models = openai.OpenAI(base_url=there, api_key="none").models.list()
        assert [model.id for model in models] == ["builtin:tiny"]
    with pytest.raises(openai.APIConnectionError):
        openai.OpenAI(base_url=there, api_key="none", max_retries=0).models.list()


def test_the_openai_sdk_streams_what_it_answers(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert openai_sdk.main(["--base-url", url, "--max-tokens", "8"]) == 0
    shown = capsys.readouterr().out
    assert "builtin:tiny" in shown
    whole = shown.partition("chat (length)\n")[2].partition("\nchat, streamed\n")[0]
    streamed = shown.partition("chat, streamed\n")[2]
    assert whole and streamed.startswith(whole)
    assert "8 drawn" in shown


def test_a_server_that_is_not_there_is_one_message(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        map_reduce.main(["--base-url", "http://127.0.0.1:9/v1"])
    assert ended.value.code == 1
    assert "127.0.0.1:9" in capsys.readouterr().err


def test_a_server_that_cannot_start_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, server(None, "/no/such/model"):
        pytest.fail("there is no such model")
    assert ended.value.code == 1
    assert "/no/such/model" in capsys.readouterr().err


def test_an_interrupted_recipe_leaves_no_server_behind() -> None:
    program = """
import os, signal, sys, time
sys.path.insert(0, sys.argv[1])
from serving import server
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs inherit that it is ignored
with server(None) as url:
    print(url, flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    while True:  # not signal.pause(): another thread may have got the signal, and nothing would wake this one
        time.sleep(0.05)
"""
    folder = str(Path(openai_sdk.__file__).parent)
    command = [sys.executable, "-c", program, folder]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert ran.returncode == 130, ran.stderr
    assert "Traceback" not in ran.stderr
    with pytest.raises(openai.APIConnectionError):
        openai.OpenAI(base_url=ran.stdout.strip(), api_key="none", max_retries=0).models.list()
