"""A batch job over a folder: a summary and a title for every text file, with a progress bar, that can be run again.

    python recipes/batch_folder.py                       # chapters of Python's reference, in a folder of their own
    python recipes/batch_folder.py FOLDER --out SUMMARIES --at-once 8

Each file is a chain of two calls, which the planner sends together; `--at-once` files are worked on at one time, on
the client as on the server. A file whose summary is there already is left out, so a job that was stopped goes on where
it was; one that fails is named at the end, and the others are done.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from call_log import printable, random_weights
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough
from reading import DEFAULT_TOPICS, chapters
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from serving import add_server_options, at_least_one, served_model, server

from parrot_compat.integrations.langchain import ChatParrot, stats

SUMMARISE = ChatPromptTemplate.from_template("Summarise this text in two sentences:\n\n{text}")
ENTITLE = ChatPromptTemplate.from_template("A title for: {summary}")


def digest(llm: ChatParrot) -> Runnable[Any, dict[str, str]]:
    """From {"text": …} to that, its summary and its title."""
    summary = RunnablePassthrough.assign(summary=SUMMARISE | llm | StrOutputParser())
    return summary | RunnablePassthrough.assign(title=ENTITLE | llm | StrOutputParser())


@contextmanager
def folder_of(given: str | None) -> Iterator[Path]:
    """The folder that is named, or one with chapters of Python's reference in it."""
    if given is not None:
        if not Path(given).is_dir():
            raise SystemExit(f"{given} is not a folder")
        yield Path(given)
        return
    with tempfile.TemporaryDirectory(prefix="parrot-") as made:
        for name in DEFAULT_TOPICS:
            Path(made, f"{name}.txt").write_text(chapters([name]), encoding="utf-8")
        yield Path(made)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Summaries of a folder of texts.")
    parser.add_argument("folder", nargs="?", help="*.txt and *.md in it are read; not given: chapters of Python's own")
    parser.add_argument(
        "--out", type=Path, default=None, metavar="FOLDER", help="where summaries go (FOLDER/summaries)"
    )
    parser.add_argument("--at-once", type=at_least_one, default=4, metavar="N", help="files at one time (4)")
    parser.add_argument("--characters", type=at_least_one, default=1500, help="how much of each file is read")
    parser.add_argument("--max-tokens", type=at_least_one, default=64, help="tokens of each answer")
    add_server_options(parser)
    options = parser.parse_args(argv)
    console = Console()
    failed: list[str] = []
    titles: dict[str, str] = {}
    before = stats()

    with folder_of(options.folder) as folder, server(options.base_url, options.model) as url:
        out = options.out or folder / "summaries"
        out.mkdir(parents=True, exist_ok=True)
        files = sorted(path for path in folder.iterdir() if path.suffix in (".txt", ".md"))
        todo = [path for path in files if not (out / path.name).exists()]
        texts = [{"text": path.read_text(errors="replace")[: options.characters]} for path in todo]
        model = served_model(url, options.model)
        llm = ChatParrot(base_url=url, model=model, max_tokens=options.max_tokens, temperature=0)
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console) as progress:
            bar = progress.add_task("files", total=len(files), completed=len(files) - len(todo))
            width: Any = {"max_concurrency": options.at_once}
            for index, made in digest(llm).batch_as_completed(texts, width, return_exceptions=True):
                if isinstance(made, Exception):
                    failed.append(f"{todo[index].name}: {made}")
                else:
                    titles[todo[index].name] = made["title"].strip()
                    text = f"{titles[todo[index].name]}\n\n{made['summary'].strip()}\n"
                    (out / todo[index].name).write_text(text, encoding="utf-8")
                progress.advance(bar)

    now = stats()
    came = f"{now.pushed - before.pushed} pushed, {now.claimed - before.claimed} claimed"
    console.print(f"{len(todo) - len(failed)} of {len(files)} files done now", highlight=False)
    for name, title in sorted(titles.items()):
        console.print(printable(f"  {name}: {title}"), markup=False, highlight=False)
    console.print(f"answers: {came}, {now.direct - before.direct} direct", style="dim", highlight=False)
    for line in failed:
        console.print(printable(line), style="red", markup=False, highlight=False)
    random_weights(console, {model})
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
