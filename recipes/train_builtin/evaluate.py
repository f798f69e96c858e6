"""Ask `builtin:tiny`, or any model, the held-out questions, through our server, and print how many are right.

    python -m recipes.train_builtin.evaluate
    python -m recipes.train_builtin.evaluate --tasks copy tool --each 50 --base-url http://127.0.0.1:8000/v1

Answers are greedy and free: no grammar holds them. Right is what equals the expected answer, character for character;
of a call of tools, its names and arguments. Beside it stands how many words are right (F1), and the same two numbers
for an answer that needs no model: the lead sentence, or the text as it was before an edit.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import fmean
from typing import Any

from openai import OpenAI
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from tokenizers import Tokenizer

from parrot_compat.gpu.models.builtin import checkpoint
from recipes.train_builtin.corpus import load
from recipes.train_builtin.example import Example, call_text
from recipes.train_builtin.scoring import held_out

sys.path.insert(0, str(Path(__file__).parents[1]))
from serving import add_server_options, server

BARS = {"copy": 0.95, "quote": 0.95, "tool": 0.85, "extract": 0.80}
COLUMNS = ("task", "examples", "exact", "f1", "baseline_exact", "baseline_f1")


def answered(client: OpenAI, model: str, example: Example, most: int) -> str:
    """The answer as the model wrote it."""
    messages: Any = [wire(message) for message in example.messages]
    asked: dict[str, Any] = {"tools": list(example.tools)} if example.tools else {}
    reply = client.chat.completions.create(model=model, messages=messages, max_tokens=most, temperature=0, **asked)
    said = reply.choices[0].message
    calls = [
        called(call.function.name, call.function.arguments) for call in said.tool_calls or [] if call.type == "function"
    ]
    return "\n".join([said.content or "", *calls] if said.content else calls)


def called(name: str, arguments: str) -> str:
    """The call as examples have it; arguments that are no JSON, which no grammar forbids here, as they are: wrong."""
    try:
        return call_text(name, json.loads(arguments))
    except ValueError:
        return f"{name} {arguments}"


def wire(message: dict[str, Any]) -> dict[str, Any]:
    """As OpenAI has it: ids, and arguments as text."""
    if message["role"] == "tool":
        return {**message, "tool_call_id": "call"}
    if not message.get("tool_calls"):
        return message
    calls = []
    for call in message["tool_calls"]:
        function = {**call["function"], "arguments": json.dumps(call["function"]["arguments"], ensure_ascii=False)}
        calls.append({"id": "call", "type": "function", "function": function})
    return {**message, "tool_calls": calls}


def f1(said: str, wanted: str) -> float:
    """Of words and signs."""
    first, second = (Counter(re.findall(r"\w+|[^\w\s]", text)) for text in (said, wanted))
    common = (first & second).total()
    return 2 * common / max(1, first.total() + second.total())


def row(task: str, examples: Sequence[Example], answers: Sequence[str]) -> list[Any]:
    pairs = list(zip(answers, (one.answer for one in examples), strict=True))
    bases = [(one.baseline, one.answer) for one in examples if one.baseline is not None]
    scored = [round(fmean(said == wanted for said, wanted in some), 4) if some else "" for some in (pairs, bases)]
    near = [round(fmean(f1(said, wanted) for said, wanted in some), 4) if some else "" for some in (pairs, bases)]
    return [task, len(pairs), scored[0], near[0], scored[1], near[1]]


def show(console: Console, rows: Sequence[Sequence[Any]]) -> None:
    table = Table(*COLUMNS, "bar")
    for found in rows:
        bar = BARS.get(found[0])
        style = None if bar is None else "green" if found[2] >= bar else "red"
        table.add_row(*map(str, found), "" if bar is None else f"{bar:.2f}", style=style)
    console.print(table)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--each", type=int, default=100, help="examples of each task (100)")
    parser.add_argument("--tasks", nargs="+", default=None, help="only these")
    parser.add_argument("--corpus", type=Path, default=None, help="a file that corpus.py wrote")
    parser.add_argument("--csv", type=Path, default=None, help="write the table here too")
    parser.add_argument("--wrong", type=int, default=0, help="show so many wrong answers of each task")
    parser.add_argument("--at-once", type=int, default=16, help="requests at a time (16)")
    add_server_options(parser)
    options = parser.parse_args(argv)
    console = Console()
    tokenizer = Tokenizer.from_file(str(checkpoint("tiny") / "tokenizer.json"))
    test = held_out(load(options.corpus), tokenizer, options.each)
    test = {task: some for task, some in test.items() if options.tasks is None or task in options.tasks}
    rows = []
    with (
        server(options.base_url, options.model) as url,
        ThreadPoolExecutor(options.at_once) as pool,
        Progress(console=console, transient=True) as progress,
    ):
        client = OpenAI(base_url=url, api_key="none", timeout=600)
        model = options.model or "builtin:tiny"
        bar = progress.add_task("asking", total=sum(map(len, test.values())))

        def ask(example: Example) -> str:
            said = answered(client, model, example, 32 + len(tokenizer.encode(example.answer).ids))
            progress.advance(bar)
            return said

        for task, examples in test.items():
            answers = list(pool.map(ask, examples))
            rows.append(row(task, examples, answers))
            if options.csv is not None:  # after each task: texts of 3K tokens take longer than all others
                keep(options.csv, rows)
            wrong = [pair for pair in zip(examples, answers, strict=True) if pair[0].answer != pair[1]]
            for example, said in wrong[: options.wrong]:
                console.print(
                    f"--- {task}\n{example.prompt()[-600:]}\nwanted {example.answer!r}\nsaid   {said!r}", markup=False
                )
    show(console, rows)
    return 0


def keep(path: Path, rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])


if __name__ == "__main__":
    raise SystemExit(main())
