"""The LlamaIndex recipes, and the SDK's with references, run as a user runs them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import openai_references
import pytest

pytest.importorskip("llama_index.core")

import llama_index.core
import llamaindex_rag
import llamaindex_summary


@pytest.fixture(autouse=True)
def _settings_of_its_own() -> Iterator[None]:
    """LlamaIndex's settings are the process's."""
    yield
    llama_index.core.Settings._llm = llama_index.core.Settings._embed_model = None
    llama_index.core.global_tokenizer = None


@pytest.mark.parametrize("mode", ["tree_summarize", "refine"])
def test_a_summary_is_pushed_whole_and_is_the_one_without_a_plan(
    mode: str, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["--base-url", url, "--topics", "del", "raise", "--max-tokens", "4", "--mode", mode, "--window", "700"]
    assert llamaindex_summary.main(arguments) == 0
    planned = capsys.readouterr().out
    counts = re.search(r"(\d+) calls in 1 plans: (\d+) pushed, 0 claimed, 0 direct, 0 wasted", planned)
    assert counts is not None and int(counts[1]) == int(counts[2]) > 1
    monkeypatch.setenv("PARROT_PLANNING", "off")
    assert llamaindex_summary.main(arguments) == 0
    plain = capsys.readouterr().out
    assert f"0 pushed, 0 claimed, {counts[1]} direct" in plain
    assert plain.split(f"{counts[1]} calls")[0] == planned.split(f"{counts[1]} calls")[0]


def test_a_question_finds_pieces_and_has_an_answer(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--base-url", url, "--topics", "pass", "break", "--max-tokens", "4", "--piece-tokens", "400"]
    assert llamaindex_rag.main([*arguments, "--top-k", "1"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^  \d\.\d{3}  (pass|break): ", shown, re.MULTILINE) and "answer" in shown


def test_calls_read_each_other_on_the_server(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert openai_references.main(["--base-url", url, "--max-tokens", "4"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("summary 1", "summary 2", "both", "title"))


@pytest.mark.parametrize("page", ["llamaindex.md", "openai_sdk.md"])
def test_the_examples_of_a_page_run_one_after_the_other(
    page: str, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARROT_BASE_URL", url)
    text = (Path(__file__).parents[2] / "docs" / page).read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) >= 3
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block.replace("http://127.0.0.1:8000/v1", url), page, "exec"), names)
    assert capsys.readouterr().out.strip()
