"""Recipes are scripts: they find each other in their own folder, so that is where they are imported from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "recipes"))


@pytest.fixture(scope="session")
def url() -> Iterator[str]:
    """A server as the recipes start it: `parrot serve` with builtin:tiny, in processes of its own."""
    pytest.importorskip("torch")
    from serving import server

    with server(None, "builtin:tiny") as url:
        yield url


@pytest.fixture(autouse=True)
def _no_server_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PARROT_BASE_URL", raising=False)
    monkeypatch.setenv("COLUMNS", "120")
    # what an app does without, where its server is that slow, a busy machine may need longer for
    monkeypatch.setattr("parrot_compat.integrations.remote.CARD_TIMEOUT_S", 60.0)
