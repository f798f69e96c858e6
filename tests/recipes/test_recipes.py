"""Every recipe, run as a user runs it, against a real server with the built-in model."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import chain_summary
import map_reduce
import openai
import openai_sdk
import pytest
from serving import server


def rows(table: str, name: str) -> list[list[str]]:
    """Cells of the rows of the printed table whose first cell begins with `name`."""
    cells = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in table.splitlines() if "│" in line]
    return [row for row in cells if row[0].split(" ")[0] == name]


def test_map_reduce_shows_every_call_and_a_summary(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert map_reduce.main(["--base-url", url, "--limit", "4", "--part-tokens", "120", "--max-tokens", "6"]) == 0
    shown = capsys.readouterr().out
    maps, reduces = rows(shown, "map"), rows(shown, "reduce")
    assert [row[0] for row in maps] == ["map 1", "map 2", "map 3", "map 4"]
    assert len(reduces) == 1
    last_map = max(float(row[3]) for row in maps)
    for _, submitted, started, finished, *_ in maps + reduces:
        assert float(submitted) <= float(started) <= float(finished)
    assert float(reduces[0][1]) >= last_map
    assert all(0 < int(row[4]) <= 200 and int(row[6]) == 6 for row in maps)
    assert "summary" in shown and "the first 4 of" in shown
    assert "random weights" in shown


def test_the_instruction_that_maps_share_is_computed_once(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--base-url", url, "--limit", "2", "--part-tokens", "150", "--max-tokens", "2"]
    for _ in range(2):
        assert map_reduce.main(arguments) == 0
    again = rows(capsys.readouterr().out, "map")[-2:]
    assert all(0 < int(row[5]) < int(row[4]) for row in again)


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
    assert [row[0] for row in calls] == ["begin", "refine 1", "refine 2"]
    for before, after in itertools.pairwise(calls):
        assert float(before[3]) <= float(after[1])
    answer = shown.partition("summary\n")[2].partition("3 calls")[0]
    assert answer.strip()


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
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from serving import server
with server(None) as url:
    print(url, flush=True)
    os.kill(os.getpid(), signal.SIGINT)
    signal.pause()
"""
    folder = str(Path(openai_sdk.__file__).parent)
    command = [sys.executable, "-c", program, folder]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert ran.returncode == 130, ran.stderr
    assert "Traceback" not in ran.stderr
    with pytest.raises(openai.APIConnectionError):
        openai.OpenAI(base_url=ran.stdout.strip(), api_key="none", max_retries=0).models.list()
