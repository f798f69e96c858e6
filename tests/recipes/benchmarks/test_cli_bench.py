"""`parrot bench`, from a checkout and without one."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("typer")
from typer.testing import CliRunner

from parrot_compat.cli import app, bench


@pytest.mark.parametrize("name", ["suite", "engine", "manager"])
def test_each_benchmark_reads_its_own_options(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    ran = CliRunner().invoke(app, ["bench", name, "--help"])
    assert ran.exit_code == 0
    assert f"usage: parrot bench {name}" in ran.output
    assert "--rounds" in ran.output


def test_without_a_checkout_it_says_where_the_benchmarks_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_ROOT", tmp_path)
    ran = CliRunner().invoke(app, ["bench", "suite"])
    assert ran.exit_code == 1
    assert "in the repository" in ran.output


def test_a_wrong_option_is_a_usage_error() -> None:
    assert CliRunner().invoke(app, ["bench", "suite", "--no-such-thing"]).exit_code == 2
