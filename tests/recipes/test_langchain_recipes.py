"""The recipes that bring LangChain apps along, run as a user runs them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest.importorskip("langchain.agents")

import agent
import batch_folder
import copilot
import edit_loop
import orders
import two_line_diff

from .test_recipes import names, rows


def test_an_agent_looks_up_and_answers_and_its_second_call_reads_the_first_from_the_cache(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert agent.main(["--base-url", url]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^ai    read_reference\(\{'chapter': '(naming|objects|import|execmodel)'\}\)$", shown, re.M)
    assert re.search(r"^tool  ", shown, re.M)
    first, second = rows(shown, "call")
    assert int(second["cached"]) > int(first["prompt"]) // 2
    assert "answer" in shown


def test_users_of_a_copilot_share_its_long_prompt(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    sizes = ["--users", "4", "--reference-characters", "900", "--max-tokens", "3"]
    assert copilot.main(["--base-url", url, *sizes]) == 0
    shown = capsys.readouterr().out
    assert names(rows(shown, "user")) == ["user 1", "user 2", "user 3", "user 4"]
    (told,) = re.findall(r"([\d,]+) of ([\d,]+) prompt tokens were not computed again", shown)
    kept, read = (int(number.replace(",", "")) for number in told)
    assert kept > read // 2


def test_notes_become_forms_and_answers_that_read_them(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert orders.main(["--base-url", url, "--count", "3"]) == 0
    shown = capsys.readouterr().out
    calls = rows(shown, "read") + rows(shown, "answer")
    assert len(calls) == 6 and {row["answer"] for row in calls} == {"pushed"}
    assert "read 1 ─── answer" in shown
    assert "3 of 3 notes were read and answered right" in shown


def test_an_edit_loop_is_one_plan(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert edit_loop.main(["--base-url", url, "--rounds", "2", "--max-tokens", "5"]) == 0
    shown = capsys.readouterr().out
    calls = rows(shown, "draft") + rows(shown, "criticise") + rows(shown, "revise")
    assert len(calls) == 5 and all(row["answer"] in ("pushed", "claimed") for row in calls)
    assert "the last draft" in shown


def test_a_folder_is_read_once_and_a_second_run_does_what_is_left(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        (tmp_path / f"text {number}.txt").write_text(f"Parrot {number} repeats what it hears.")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    arguments = [str(tmp_path), "--base-url", url, "--max-tokens", "4", "--at-once", "2"]
    assert batch_folder.main(arguments) == 0
    shown = capsys.readouterr().out
    assert "3 of 3 files done now" in shown and "0 direct" in shown
    made = sorted(path.name for path in (tmp_path / "summaries").iterdir())
    assert made == ["text 0.txt", "text 1.txt", "text 2.txt"]
    (tmp_path / "summaries" / made[1]).unlink()
    assert batch_folder.main(arguments) == 0
    assert "1 of 3 files done now" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="is not a folder"):
        batch_folder.main([str(tmp_path / "nothing here")])


def test_a_file_that_fails_is_named_and_the_others_are_done(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("Parrots repeat.")
    (tmp_path / "b.txt").write_text("word " * 20_000)
    assert batch_folder.main([str(tmp_path), "--base-url", url, "--max-tokens", "4", "--characters", "90000"]) == 1
    shown = capsys.readouterr().out
    assert "1 of 2 files done now" in shown and "b.txt: " in shown


def test_two_lines_switch_an_app_and_its_answer_stays(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("langchain_openai")
    assert two_line_diff.main(["--base-url", url, "--both"]) == 0
    shown = capsys.readouterr().out
    changed = [line for line in shown.splitlines() if re.match(r"[-+] *(from|llm)", line)]
    assert len(changed) == 4
    assert "answers: 3 pushed, 0 claimed, 0 direct" in shown
    assert "the app as it was gives the same answer" in shown


def test_an_app_that_has_no_such_lines_is_told(tmp_path: Path) -> None:
    file = tmp_path / "app.py"
    file.write_text("print('hello')\n")
    with pytest.raises(SystemExit, match="has none of these lines"):
        two_line_diff.main(["--app", str(file)])
