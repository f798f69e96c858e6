"""Two semantic functions, the second of which reads what the first one makes: WritePythonCode, then WriteTestCode.

    python recipes/hello_variable.py                                        # in this process
    python recipes/hello_variable.py --base-url http://127.0.0.1:8000/v1    # on a server
    python recipes/hello_variable.py --rtt-ms 240                           # on a server that far away

Both calls are handed over before either has an answer: `code` is a variable, and giving it to the second function makes
an edge of the graph. So the code goes to the second call where it is made, and the app waits once, for the tests.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager

from call_log import random_weights, show_answer
from rich.console import Console
from serving import add_server_options, far_away, server
from session_view import show_session

from parrot_compat import Outputs, Variable, connect, embedded, semantic_function
from parrot_compat.core.errors import ParrotError
from parrot_compat.integrations.application.application import Application
from parrot_compat.integrations.application.session import Session


class Code(Outputs):
    code: Variable


class Test(Outputs):
    test: Variable


def write_code(task: str | Variable) -> Code:
    """You are an expert software engineer.
    Write a Python function for this task: {{input:task}}.
    The code: {{output:code}}"""


def write_test(task: str | Variable, code: str | Variable) -> Test:
    """You are an experienced QA engineer.
    The task was: {{input:task}}. It was solved so:

    {{input:code}}

    Write test code for it: {{output:test}}"""


@contextmanager
def application(base_url: str | None, model: str | None, rtt_ms: float | None) -> Iterator[Application]:
    if rtt_ms is not None:
        with server(base_url, model) as near, far_away(near, rtt_ms) as far, connect(far) as made:
            yield made
    elif base_url is not None:
        with connect(base_url) as made:
            yield made
    else:
        with embedded(model or "builtin:tiny") as made:
            yield made


def run(session: Session, task: str, rtt_ms: float | None, console: Console, model: str | None = None) -> None:
    """In the block of the session, to which the calls belong. Without a `model` it is the first that is served."""
    # as `@semantic_function(…)` above them would, where the model is known when they are written
    asking = semantic_function(max_tokens=48, temperature=0, model=model)
    began = time.perf_counter()
    code = asking(write_code)(task).code
    test = asking(write_test)(task, code.transform("strip")).test
    handed_over = time.perf_counter()
    tests = test.get()
    waited_s = time.perf_counter() - began

    described = session.describe()
    first, second = described["calls"]
    worked_s = second["finished_s"] - first["submitted_s"]
    show_session(console, described)
    show_answer(console, "code", code.get())
    show_answer(console, "tests", tests)
    between_s = second["started_s"] - first["finished_s"]
    lines = [
        f"both calls were handed over after {1000 * (handed_over - began):.1f} ms",
        f"the second began {1000 * between_s:.1f} ms after the first had ended",
        f"the app waited {waited_s:.2f} s, the calls took {worked_s:.2f} s of it",
    ]
    if rtt_ms:
        lines.append(f"so {1000 * (waited_s - worked_s) / rtt_ms:.1f} round trips of {rtt_ms:g} ms were paid")
    console.print("\n".join(lines), highlight=False, soft_wrap=True)
    random_weights(console, {call["model"] for call in described["calls"]})


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Two semantic functions and the variable between them.")
    parser.add_argument("--task", default="sort a list of words by length", help="what the code is for")
    parser.add_argument("--rtt-ms", type=float, default=None, help="put the server this far away, through a proxy")
    add_server_options(parser)
    options = parser.parse_args(argv)
    console = Console()
    try:
        with (
            application(options.base_url, options.model, options.rtt_ms) as made,
            made.open_session("hello variable") as session,
        ):
            console.print(f"session {session.id}", style="dim", highlight=False)
            run(session, options.task, options.rtt_ms, console, options.model)
    except ParrotError as error:
        Console(stderr=True).print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
