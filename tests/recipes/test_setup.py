"""scripts/setup in a folder of its own: the venv is real but for pip, which writes down what it is asked for."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = f"""#!/bin/sh
case "$*" in
  *"-m pip install"*) echo "$*" >> "$PIP_ASKED"; exit "$(cat "$PIP_ENDS")" ;;
  *) exec {sys.executable} "$@" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("pyproject.toml", "constraints.txt", "constraints-cpu.txt", "scripts/setup"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON)
    python.chmod(0o755)
    (tmp_path / ".venv/pyvenv.cfg").write_text("include-system-site-packages = false\n")
    (tmp_path / "ends").write_text("0")
    monkeypatch.setenv("PIP_ASKED", str(tmp_path / "asked"))
    monkeypatch.setenv("PIP_ENDS", str(tmp_path / "ends"))
    monkeypatch.delenv("PYTHON", raising=False)
    return tmp_path


def setup(checkout: Path, *extras: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(checkout / "scripts/setup"), *extras]
    return subprocess.run(
        command, env={**os.environ, **environment}, cwd="/", capture_output=True, text=True, check=False
    )


def asked(checkout: Path) -> list[str]:
    file = checkout / "asked"
    return file.read_text().splitlines() if file.exists() else []


def test_it_installs_once(checkout: Path) -> None:
    first = setup(checkout)
    assert first.returncode == 0, first.stderr
    (call,) = asked(checkout)
    assert call.endswith("-e .[gpu,langchain,server]") and "-c constraints" in call
    second = setup(checkout)
    assert (second.returncode, second.stderr, len(asked(checkout))) == (0, "", 1)


def test_it_installs_again_when_what_it_installs_has_changed(checkout: Path) -> None:
    setup(checkout)
    with (checkout / "pyproject.toml").open("a") as file:
        file.write("# changed\n")
    assert setup(checkout).returncode == 0
    assert len(asked(checkout)) == 2


def test_a_further_extra_is_added_and_stays(checkout: Path) -> None:
    setup(checkout)
    setup(checkout, "dev")
    setup(checkout)
    setup(checkout, "dev")
    assert [call.rpartition(" ")[2] for call in asked(checkout)] == [
        ".[gpu,langchain,server]",
        ".[dev,gpu,langchain,server]",
    ]


def test_an_extra_that_there_is_not_is_refused_with_those_that_there_are(checkout: Path) -> None:
    refused = setup(checkout, "dev", "llama-index")
    assert refused.returncode == 1 and asked(checkout) == []
    assert refused.stderr == (
        "There is no extra llama-index; there are: bench, dev, gpu, langchain, llamaindex, server.\n"
    )


def test_it_says_where_the_small_torch_comes_from_unless_an_index_is_named(checkout: Path) -> None:
    if not sys.platform.startswith("linux") or shutil.which("nvidia-smi"):
        pytest.skip("only pip's default index for Linux has another torch than a machine without a GPU wants")
    assert "PIP_EXTRA_INDEX_URL" in setup(checkout, PIP_INDEX_URL="", PIP_EXTRA_INDEX_URL="").stderr
    assert "PIP_EXTRA_INDEX_URL" not in setup(checkout, "dev", PIP_EXTRA_INDEX_URL="named").stderr


def test_the_benchmarks_find_ldconfig_where_an_ordinary_users_path_lacks_it(tmp_path: Path) -> None:
    ordinary = "/usr/local/bin:/usr/bin:/bin"
    if shutil.which("ldconfig", path="/usr/sbin:/sbin") is None or shutil.which("ldconfig", path=ordinary):
        pytest.skip("this machine has it elsewhere")
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/bench-setup", tmp_path / "scripts")
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\ncase "$*" in *venv*) exit 1 ;; esac\n')
    python.chmod(0o755)
    ended = subprocess.run(
        [str(tmp_path / "scripts/bench-setup")],
        env={"PATH": ordinary, "PYTHON": str(python)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1 and "not found" not in ended.stderr


def test_what_pip_could_not_install_is_tried_again(checkout: Path) -> None:
    (checkout / "ends").write_text("1")
    failed = setup(checkout)
    assert failed.returncode == 1 and "pip could not install it" in failed.stderr
    (checkout / "ends").write_text("0")
    assert setup(checkout).returncode == 0
    assert len(asked(checkout)) == 2


def test_a_torch_of_the_machine_is_not_pinned_away(checkout: Path) -> None:
    (checkout / ".venv/pyvenv.cfg").write_text("include-system-site-packages = true\n")
    setup(checkout)
    assert "-c constraints.txt" in asked(checkout)[0]


def test_a_python_that_does_not_fit_is_named(checkout: Path) -> None:
    refused = setup(checkout, PYTHON="/no/such/python")
    assert refused.returncode == 1
    assert refused.stderr == "PYTHON=/no/such/python is not a Python 3.11, 3.12 or 3.13.\n"
    assert asked(checkout) == []
