"""Summarise a long text by refining: every call reads one more part and the summary so far.

    python recipes/chain_summary.py
    python recipes/chain_summary.py FILE --base-url http://127.0.0.1:8000/v1

No call can begin before the one before it has ended. An app that waits for each answer pays the way to the server
and back for every call; here the planner has sent the whole chain in one request, and the calls follow one another
on the server. The last one is streamed.
"""

from __future__ import annotations

import argparse
import itertools
from typing import Any

from call_log import CallLog, printable
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable
from plan_view import watch_plans
from reading import cut, read_text, show_parts
from rich.console import Console
from serving import add_server_options, at_least_one, server

from parrot_compat.integrations.langchain import ChatParrot

SYSTEM = ("system", "You keep the summary of a text that is read to you part by part. Be brief.")
BEGIN = ChatPromptTemplate.from_messages([SYSTEM, ("human", "The first part:\n\n{part}\n\nSummarise it.")])
REFINE = ChatPromptTemplate.from_messages(
    [SYSTEM, ("human", "The summary so far:\n\n{summary}\n\nThe next part:\n\n{part}\n\nGive the new summary.")]
)


def refine(llm: ChatParrot, parts: list[str]) -> Runnable[Any, str]:
    """One chain over all parts; its input is empty."""
    chain: Runnable[Any, str] = BEGIN.partial(part=parts[0]) | llm.with_config(run_name="begin") | StrOutputParser()
    for part in parts[1:]:
        chain = chain | REFINE.partial(part=part) | llm.with_config(run_name="refine") | StrOutputParser()
    return chain


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Refine summary with LangChain.")
    parser.add_argument("file", nargs="?", help="a text file; not given: chapters of Python's reference")
    parser.add_argument(
        "--topics", nargs="+", default=["exceptions", "context-managers"], metavar="NAME", help="which chapters"
    )
    parser.add_argument("--part-tokens", type=at_least_one, default=200, help="tokens of each part")
    parser.add_argument("--max-tokens", type=at_least_one, default=96, help="tokens of each answer")
    parser.add_argument("--limit", type=at_least_one, default=None, help="read this many parts at most")
    add_server_options(parser)
    options = parser.parse_args(argv)
    console = Console()
    text = read_text(options.file, options.topics)

    with server(options.base_url, options.model) as url:
        llm = ChatParrot(
            base_url=url, model=options.model, max_tokens=options.max_tokens, temperature=0, streaming=True
        )
        parts = cut(text, llm, options.part_tokens)
        show_parts(console, text, parts, options.limit)
        parts = parts[: options.limit]
        log = CallLog(total=len(parts), console=console)
        with watch_plans() as plans:
            with log.progress:
                pieces = refine(llm, parts).stream({}, {"callbacks": [log]})
                first = next(pieces)
            console.print("summary", style="bold")
            for piece in itertools.chain([first], pieces):
                console.print(printable(piece), end="", markup=False, highlight=False, soft_wrap=True)
            console.print()

    plans.show(console, log)
    log.say_if_random()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
