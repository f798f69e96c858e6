"""Text for the recipes, and how to cut it: chapters of Python's own reference, or any file.

Every CPython carries its language reference in `pydoc_data.topics`, so there is real text on every machine.
"""

from __future__ import annotations

import re
from pathlib import Path
from pydoc_data.topics import topics

from langchain_core.language_models import BaseLanguageModel
from rich.console import Console

DEFAULT_TOPICS = ("execmodel", "naming", "objects", "import")
HEADING = re.compile(r"^.+\n([*=~^-])\1{3,}\n", re.MULTILINE)
"""A line, and a line under it."""


def chapters(names: list[str] | tuple[str, ...]) -> str:
    """Their text, without the headings."""
    unknown = [name for name in names if name not in topics]
    if unknown:
        raise SystemExit(f"no such topic: {', '.join(unknown)}. There are: {', '.join(sorted(topics))}")
    return "\n\n".join(HEADING.sub("", topics[name]).strip() for name in names)


def read_text(file: str | None, names: list[str] | tuple[str, ...]) -> str:
    """The file, or the chapters where no file is named."""
    if file is None:
        return chapters(names)
    try:
        text = Path(file).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SystemExit(f"{file} cannot be read: {error.strerror}") from None
    if not text.strip():
        raise SystemExit(f"{file} has no text in it")
    return text


def show_parts(console: Console, text: str, parts: list[str], limit: int | None) -> None:
    some = "" if limit is None or limit >= len(parts) else f"the first {limit} of "
    many = "1 part" if len(parts) == 1 else f"{len(parts)} parts"
    console.print(f"text    {len(text):,} characters in {some}{many}", style="dim", highlight=False)


def cut(text: str, llm: BaseLanguageModel, tokens: int) -> list[str]:
    """Pieces of at most `tokens` tokens, as the served model counts them, cut between paragraphs where that is
    possible, else between lines, else anywhere."""

    def fits(piece: str) -> bool:
        # a piece of many characters is cut without asking how many tokens it has
        return len(piece) < 2 or (len(piece) <= 16 * tokens and llm.get_num_tokens(piece) <= tokens)

    if fits(text):
        return [text] if text.strip() else []
    half = len(text) // 2
    boundary = next((boundary for boundary in ("\n\n", "\n") if boundary in text.strip(boundary)), "")
    pieces: list[str] = []
    for part in text.split(boundary) if boundary else (text[:half], text[half:]):
        longer = f"{pieces[-1]}{boundary}{part}" if pieces else part
        if fits(longer):
            pieces[-1:] = [longer]
        else:
            pieces += cut(part, llm, tokens)
    return [piece for piece in pieces if piece.strip()]
