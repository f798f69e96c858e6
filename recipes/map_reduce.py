"""Summarise a long text in one LangChain chain: a call for each part (map), then one over their summaries (reduce).

    python recipes/map_reduce.py                        # chapters of Python's language reference, a server of its own
    python recipes/map_reduce.py --topics import try    # other chapters (a name it does not know lists them all)
    python recipes/map_reduce.py FILE --base-url http://127.0.0.1:8000/v1

The app below is ordinary LangChain; the class of `llm` is all that is ours. Its map calls share the instruction
they begin with, which the server computes once (`cached` in the table), and the reduce call begins on the server
the moment the last of them has ended: the planner has sent all of them in one request (`answer` in the table).
"""

from __future__ import annotations

import argparse
from typing import Any

from call_log import CallLog, show_answer
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable
from plan_view import watch_plans
from reading import DEFAULT_TOPICS, cut, read_text, show_parts
from rich.console import Console
from serving import add_server_options, at_least_one, server

from parrot_compat.integrations.langchain import ChatParrot

MAP = ChatPromptTemplate.from_messages(
    [
        ("system", "You summarise technical documentation. Keep names and rules; leave out examples. Be brief."),
        ("human", "Summarise this part of a longer text in two sentences:\n\n{part}"),
    ]
)
REDUCE = ChatPromptTemplate.from_messages(
    [
        ("system", "You summarise technical documentation. Keep names and rules; leave out examples. Be brief."),
        ("human", "These are summaries of the parts of one text, in order. Summarise the whole text:\n\n{summaries}"),
    ]
)


def map_reduce(llm: ChatParrot) -> Runnable[list[dict[str, str]], str]:
    """From [{"part": …}, …] to the summary of all."""
    read_one = MAP | llm.with_config(run_name="map") | StrOutputParser()
    read_all: Runnable[Any, str] = REDUCE | llm.with_config(run_name="reduce") | StrOutputParser()
    return read_one.map() | "\n\n".join | read_all


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Map-reduce summary with LangChain.")
    parser.add_argument("file", nargs="?", help="a text file; not given: chapters of Python's reference")
    parser.add_argument("--topics", nargs="+", default=DEFAULT_TOPICS, metavar="NAME", help="which chapters")
    parser.add_argument("--part-tokens", type=at_least_one, default=400, help="tokens of each part")
    parser.add_argument("--max-tokens", type=at_least_one, default=48, help="tokens of each answer")
    parser.add_argument("--limit", type=at_least_one, default=None, help="read this many parts at most")
    add_server_options(parser)
    options = parser.parse_args(argv)
    console = Console()
    text = read_text(options.file, options.topics)

    with server(options.base_url, options.model) as url:
        # streaming, so that the table can tell when an answer began
        llm = ChatParrot(
            base_url=url, model=options.model, max_tokens=options.max_tokens, temperature=0, streaming=True
        )
        with console.status("cutting the text into parts"):
            parts = cut(text, llm, options.part_tokens)
        show_parts(console, text, parts, options.limit)
        parts = parts[: options.limit]
        log = CallLog(total=len(parts) + 1, console=console)
        with log.progress, watch_plans() as plans:
            summary = map_reduce(llm).invoke([{"part": part} for part in parts], {"callbacks": [log]})

    plans.show(console, log)
    show_answer(console, "summary", summary)
    log.say_if_random()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
