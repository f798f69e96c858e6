"""The text that every CPython carries: its language reference, docstrings, and the functions of its library.

    python -m recipes.train_builtin.corpus build/corpus.json.xz

Nothing is downloaded or imported: the sources are parsed. It knows nothing of tasks or tokens. The text is CPython's,
Copyright (c) 2001-2023 Python Software Foundation, under the PSF License Agreement.

The invariant: whole topics and whole packages are held out, and a hash of their names says which, so no text of a
held-out package, nor of tests that are called as one is, is ever in the other part. The same CPython gives the same
corpus.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import inspect
import itertools
import json
import lzma
import sysconfig
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from pydoc_data import topics

LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "site-packages", "encodings", "turtledemo"}
HELD_OUT_OF = 10
"""One in so many topics and packages is held out."""
CODE_LINES = range(2, 41)
LEAST = 80
"""Characters of a comment or a string that is kept."""


@dataclass(frozen=True, slots=True)
class Document:
    source: str
    """The topic, or the package."""
    kind: str
    """`topic`, `doc` (a docstring), `code` (a function), or `more`: comments and long strings, those of tests
    too. `more` is only trained on, and only where a run asks for it."""
    text: str

    @property
    def is_held_out(self) -> bool:
        return int(hashlib.sha256(self.source.encode()).hexdigest(), 16) % HELD_OUT_OF == 0


def extracted() -> Iterator[Document]:
    """All documents of this CPython, always in the same order."""
    for name in sorted(topics.topics):
        yield Document(f"topic {name}", "topic", topics.topics[name].strip())
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        if not LEFT_OUT & set(parts) and not parts[0].startswith("_sysconfigdata"):
            yield from of_file(path, f"package {parts[0]}")


def more() -> Iterator[Document]:
    """What else is written in the library's files, one document of each, of nothing that is held out."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        if {"site-packages", "encodings", "pydoc_data"} & set(parts) or parts[0].startswith("_sysconfigdata"):
            continue
        is_test = parts[0] == "test" and len(parts) > 1
        source = f"package {parts[1].removeprefix('test_') if is_test else parts[0]}"
        try:
            written = path.read_text("utf-8")
            blocks = [*comments(written), *strings(written, with_docstrings=bool(LEFT_OUT & set(parts)))]
        except (SyntaxError, ValueError):
            continue
        document = Document(source, "more", "\n\n".join(blocks))
        if blocks and not document.is_held_out:
            yield document


def comments(written: str) -> Iterator[str]:
    """The comments that stand on lines of their own, those without a line between them together."""
    lines = [line.strip() for line in written.splitlines()]
    for is_comment, some in itertools.groupby(lines, lambda line: line.startswith("#")):
        text = "\n".join(line.lstrip("#").removeprefix(" ") for line in some) if is_comment else ""
        if len(text.strip()) >= LEAST:
            yield text.strip("\n")


def strings(written: str, *, with_docstrings: bool) -> Iterator[str]:
    """The literals that somebody wrote to be read: long ones, with blanks in them."""
    tree = ast.parse(written)
    docstrings = {id(node.body[0].value) for node in ast.walk(tree) if _has_docstring(node)}  # type: ignore[attr-defined]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
            continue
        text = inspect.cleandoc(node.value)
        is_prose = len(text) >= LEAST and text.count(" ") >= len(text) / 15 and text.replace("\n", "").isprintable()
        if is_prose and (with_docstrings or id(node) not in docstrings):
            yield text


def _has_docstring(node: ast.AST) -> bool:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return isinstance(node, kinds) and ast.get_docstring(node) is not None


def of_file(path: Path, source: str) -> Iterator[Document]:
    try:
        written = path.read_text("utf-8")
        tree = ast.parse(written)
    except (SyntaxError, ValueError):  # a file that is broken on purpose, or in another encoding, has nothing for us
        return
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text:
                yield Document(source, "doc", text)
        if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno + 1 in CODE_LINES:
            lines = written.splitlines()[node.lineno - 1 : node.end_lineno]
            yield Document(source, "code", textwrap.dedent("\n".join(lines)))


def load(path: Path | None = None) -> list[Document]:
    """From the file, or from this CPython where none is given; equal texts once."""
    if path is None:
        documents: Sequence[Document] = [*more(), *extracted()]  # of equal texts the last one is kept
    else:
        documents = [Document(**fields) for fields in json.loads(lzma.decompress(path.read_bytes()))]
    return list({document.text: document for document in documents}.values())


def save(documents: Sequence[Document], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(lzma.compress(json.dumps([asdict(document) for document in documents]).encode()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    output = parser.parse_args().output
    documents = load()
    save(documents, output)
    held_out = [document for document in documents if document.is_held_out]
    for name, some in (("all", documents), ("held out", held_out)):
        sizes = {kind: sum(len(d.text) for d in some if d.kind == kind) for kind in ("topic", "doc", "code", "more")}
        print(f"{name}: {len(some)} documents, characters {sizes}")
    print(sorted({document.source for document in held_out}))
    print(f"{output}: {output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
