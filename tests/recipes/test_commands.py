"""Every command that a recipe or a page shows is one that the recipe takes."""

from __future__ import annotations

import argparse
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path for path in (ROOT / "recipes").glob("*.py") if "def main(" in path.read_text())
SHOWN = sorted(
    {
        command
        for path in [*RECIPES, ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
        for command in re.findall(r"^ *(?:\.venv/bin/)?python recipes/.*$", path.read_text(), re.MULTILINE)
    }
)
NEEDS = {"agent": "langchain.agents", "existing_app": "langchain_openai", "llamaindex_rag": "llama_index.core"}
NEEDS["llamaindex_summary"] = NEEDS["llamaindex_rag"]


class Parsed(Exception):
    pass


@pytest.fixture(autouse=True)
def _end_behind_the_options(monkeypatch: pytest.MonkeyPatch) -> None:
    parse = argparse.ArgumentParser.parse_args

    def parsed(self: Any, *arguments: Any, **more: Any) -> Any:
        raise Parsed(parse(self, *arguments, **more))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parsed)


def recipe(name: str) -> Any:
    pytest.importorskip(NEEDS.get(name, "langchain_core"))
    return importlib.import_module(name)


@pytest.mark.parametrize("command", SHOWN, ids=lambda command: command.partition("recipes/")[2])
def test_a_command_that_is_shown_is_understood(command: str) -> None:
    _, script, *arguments = shlex.split(command, comments=True)
    with pytest.raises(Parsed):
        recipe(Path(script).stem).main(arguments)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_takes_a_server_and_a_model_and_shows_how_it_is_run(path: Path) -> None:
    with pytest.raises(Parsed):
        recipe(path.stem).main(["--base-url", "http://127.0.0.1:8000/v1", "--model", "builtin:tiny"])
    assert any(f"recipes/{path.name}" in command for command in SHOWN)
