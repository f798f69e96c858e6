"""Your existing app, switched: two lines of it change, and its calls become a graph.

    python recipes/two_line_diff.py
    python recipes/two_line_diff.py --app my_app.py --base-url http://127.0.0.1:8000/v1

It shows the difference, runs the switched app, and says how each answer came. `--both` runs the app as it was too
(that needs langchain-openai), and says whether the answers are equal.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
from pathlib import Path
from typing import Any

from call_log import printable, random_weights, show_answer
from rich.console import Console
from rich.syntax import Syntax
from serving import add_server_options, served_model, server

from parrot_compat.integrations.langchain import stats

APP = Path(__file__).parent / "existing_app.py"
LINES = {
    "from langchain_openai import ChatOpenAI": "from parrot_compat.integrations.langchain import ChatParrot",
    "    llm = ChatOpenAI(": "    llm = ChatParrot(",
}


def switched(source: str) -> str:
    return "\n".join(LINES.get(line, line) for line in source.split("\n"))


def answer_of(source: str, name: str, arguments: list[str]) -> str:
    """What the app prints."""
    module: dict[str, Any] = {"__name__": "existing_app", "__file__": name}
    exec(compile(source, name, "exec"), module)
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        module["main"](arguments)
    return said.getvalue().strip()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="An existing app, switched by two lines.")
    parser.add_argument("--app", type=Path, default=APP, help="a script with main(argv), --base-url and --model")
    parser.add_argument("--both", action="store_true", help="run it as it was, too")
    add_server_options(parser)
    options = parser.parse_args(argv)
    console = Console()
    before = options.app.read_text(encoding="utf-8")
    after = switched(before)
    if before == after:
        raise SystemExit(f"{options.app} has none of these lines: {', '.join(LINES)}")
    changes = difflib.unified_diff(before.split("\n"), after.split("\n"), "before", "after", n=0, lineterm="")
    console.print(Syntax("\n".join(changes), "diff", background_color="default"))

    with server(options.base_url, options.model) as url:
        model = served_model(url, options.model)
        arguments = ["--base-url", url, "--model", model]
        counted = stats()
        answer = answer_of(after, str(options.app), arguments)
        as_it_was = answer_of(before, str(options.app), arguments) if options.both else None

    now = stats()
    show_answer(console, "answer", answer)
    calls = f"{now.pushed - counted.pushed} pushed, {now.claimed - counted.claimed} claimed"
    console.print(f"answers: {calls}, {now.direct - counted.direct} direct", highlight=False)
    if as_it_was is not None:
        told = "the app as it was gives the same answer"
        console.print(told if as_it_was == answer else f"the app as it was says: {printable(as_it_was)}", markup=False)
    random_weights(console, {model})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
