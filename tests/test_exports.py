"""What `import parrot_compat` gives, and what it costs."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import parrot_compat


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = """
import sys
before = set(sys.modules)
import parrot_compat
loaded = {name.partition(".")[0] for name in set(sys.modules) - before}
heavy = loaded & {"torch", "transformers", "openai", "pydantic", "fastapi", "langchain_core", "re2", "numpy", "asyncio"}
print(sorted(heavy), sorted(name for name in sys.modules if name.startswith("parrot_compat.")))
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[] []\n"


def test_every_public_name_is_there_and_named_once() -> None:
    pytest.importorskip("langchain_core")
    for name in parrot_compat.__all__:
        found = getattr(parrot_compat, name)
        assert found is getattr(parrot_compat, name)
        assert getattr(found, "__name__", name) == name
    assert set(parrot_compat.__all__) <= set(dir(parrot_compat))
    assert list(parrot_compat.__all__) == sorted(parrot_compat.__all__)


def test_type_checkers_see_the_names_that_are_there() -> None:
    lines = [line.strip() for line in Path(str(parrot_compat.__file__)).read_text().splitlines()]
    typed = {line.rpartition(" as ")[2] for line in lines if line.startswith("from parrot_compat.")}
    assert typed == set(parrot_compat.__all__) - {"__version__"} == set(parrot_compat._HOMES)


def test_what_tells_type_checkers_that_there_are_types_is_in_the_package() -> None:
    root = Path(str(parrot_compat.__file__)).parent
    told = tomllib.loads((root.parent / "pyproject.toml").read_text())
    named = told["tool"]["setuptools"]["package-data"]["*"]
    assert "py.typed" in named and not [name for name in named if not any(root.rglob(name))]


def test_a_name_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'semantic_fonction'"):
        _ = parrot_compat.semantic_fonction
