"""What README shows runs: every Python block, against a server as README starts it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from .running import run

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
NAMES = [block.strip().splitlines()[0][:40] for block in BLOCKS]
PAGES = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]


def test_readme_has_examples() -> None:
    assert len(BLOCKS) >= 2


def check_prints(block: str, url: str, folder: Path) -> None:
    program = block.replace("http://127.0.0.1:8000/v1", url)
    result = run(program, {**os.environ, "PARROT_BASE_URL": url}, folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()


@pytest.mark.parametrize("block", BLOCKS, ids=NAMES)
def test_an_example_of_readme_runs_and_prints(block: str, url: str, tmp_path: Path) -> None:
    check_prints(block, url, tmp_path)


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[str]:
    """A server of other models, whose engines are scripted."""
    pytest.importorskip("fastapi")
    from ..integrations.served import MODELS, served

    with served() as server:
        assert "builtin:tiny" not in MODELS
        yield server.url


@pytest.mark.parametrize("block", BLOCKS, ids=NAMES)
def test_an_example_of_readme_asks_whatever_model_is_served(block: str, elsewhere: str, tmp_path: Path) -> None:
    check_prints(block, elsewhere, tmp_path)


def test_what_no_index_has_is_installed_from_a_checkout() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text()
    if "unreleased" not in re.findall(r"^## .*", changes, re.MULTILINE)[0]:
        pytest.skip("it is released")
    told = [*PAGES, *sorted((ROOT / "recipes").rglob("*.md")), *sorted((ROOT / "parrot_compat").rglob("*.py"))]
    assert not [path for path in told if re.search(r"pip install.*parrot[-_]compat", path.read_text())]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text())
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]
