"""What a machine can hold for us: layers, sizes, docstrings, exports, lint and types."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import LONGEST

ROOT = Path(__file__).parent.parent
SOURCE = sorted((ROOT / "parrot_compat").rglob("*.py"))
RECIPES = sorted((ROOT / "recipes").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

MAX_FILE_LINES = 300
MAX_TEST_LINES = 500
MAX_FUNCTION_LINES = 60

# Reviewed exceptions, each with its reason. These lists may only shrink.
LONG_FILES: dict[str, str] = {}
LONG_FUNCTIONS: dict[str, str] = {
    "parrot_compat/gpu/kernels/triton/attention.py:attend_strips": "22 lines of it are signature and contract",
}

GPU_MAY_SEE = {
    *("call", "prompt", "engine", "engine_front", "tokenizer", "errors"),
    *("output_format", "tool_styles", "parameters"),
}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def tool(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    pytest.importorskip(module)
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.timeout(600)
def test_layers_hold() -> None:
    pytest.importorskip("importlinter")
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def test_gpu_sees_of_core_only_the_ports() -> None:
    strangers = []
    for path in (ROOT / "parrot_compat/gpu").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            module = (node.module or "").removeprefix("parrot_compat.") if isinstance(node, ast.ImportFrom) else ""
            if isinstance(node, ast.ImportFrom) and module.partition(".")[0] == "core":
                seen = module.split(".")[1:2] or [alias.name for alias in node.names]
                strangers += [f"{name(path)}: core.{module}" for module in seen if module not in GPU_MAY_SEE]
    assert not strangers


def test_core_imports_with_torch_and_pydantic_absent() -> None:
    program = """
import sys
for absent in ("torch", "triton", "transformers", "pydantic", "fastapi", "langchain_core", "openai"):
    sys.modules[absent] = None
import parrot_compat.core.manager, parrot_compat.core.engines.scripted, parrot_compat.core.engines.process
"""
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_no_file_has_outgrown_its_noun() -> None:
    def long(paths: list[Path], limit: int) -> set[str]:
        return {name(path) for path in paths if len(path.read_text().splitlines()) > limit}

    assert long(SOURCE + RECIPES, MAX_FILE_LINES) | long(TESTS, MAX_TEST_LINES) == set(LONG_FILES)


def test_the_files_that_are_begun_first_are_there() -> None:
    assert not [place for place in LONGEST if not (ROOT / "tests" / place).is_file()]


def test_no_function_has_outgrown_a_screen() -> None:
    long = set()
    for path in SOURCE + RECIPES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MAX_FUNCTION_LINES:
                    long.add(f"{name(path)}:{node.name}")
    assert long == set(LONG_FUNCTIONS)


def test_every_module_says_what_it_is() -> None:
    silent = [
        name(path)
        for path in SOURCE + RECIPES
        if path.read_text().strip() and not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert not silent


def test_exports_are_complete() -> None:
    wrong = []
    for path in SOURCE:
        tree = ast.parse(path.read_text())
        exports = next(
            (
                ast.literal_eval(node.value)
                for node in tree.body
                if isinstance(node, ast.Assign)
                and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets)
            ),
            None,
        )
        if exports is None:
            continue
        public = {
            node.name
            for node in tree.body
            if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
        }
        if path.name != "__init__.py" and not public <= set(exports):
            wrong.append(f"{name(path)}: not exported: {sorted(public - set(exports))}")
    assert not wrong


def test_no_module_is_called_after_nothing() -> None:
    assert not [name(path) for path in SOURCE if path.stem in {"utils", "common", "helpers", "base", "misc"}]


def test_the_version_is_the_same_everywhere() -> None:
    package = importlib.import_module("parrot_compat")
    assert f'version = "{package.__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert f"## {package.__version__}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.timeout(600)
def test_ruff_finds_nothing() -> None:
    check = tool("ruff", "check", ".")
    assert check.returncode == 0, check.stdout
    layout = tool("ruff", "format", "--check", ".")
    assert layout.returncode == 0, layout.stdout


@pytest.mark.timeout(600)  # reading everything anew takes minutes on a busy machine
def test_mypy_strict_finds_nothing() -> None:
    result = tool("mypy")
    assert result.returncode == 0, result.stdout
