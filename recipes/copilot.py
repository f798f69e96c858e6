"""A copilot with a long prompt that all its users share: rules, a reference, and then one short question each.

    python recipes/copilot.py
    python recipes/copilot.py --users 32 --base-url http://127.0.0.1:8000/v1

Each question is one call of its own, from a user of its own. The long beginning is the same in all of them, so the
server computes it once and keeps it; the calls of one batch come together, as a group, and share it even the first
time (`cached` in the table). Nothing in the app says so.
"""

from __future__ import annotations

import argparse
import itertools
from typing import Any

from call_log import CallLog, printable
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable
from reading import chapters
from rich.console import Console
from serving import add_server_options, at_least_one, server

from parrot_compat.integrations.langchain import ChatParrot

PROMPT = ChatPromptTemplate.from_messages(
    [
        ("system", "You are the copilot of a Python editor. Answer in one line.\n\nThe reference:\n\n{reference}"),
        ("human", "{question}"),
    ]
)
QUESTIONS = (
    "What is an exception?",
    "What does the text say about handlers?",
    "Which sentence is about tracebacks?",
    "What does the text say about finally?",
    "Which sentence is about class instances?",
)


def copilot(llm: ChatParrot, reference: str) -> Runnable[Any, str]:
    return PROMPT.partial(reference=reference) | llm.with_config(run_name="user") | StrOutputParser()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A copilot with a long shared prompt.")
    parser.add_argument("--users", type=at_least_one, default=6, help="questions that come together")
    parser.add_argument(
        "--topics", nargs="+", default=["exceptions"], metavar="NAME", help="chapters that all users share"
    )
    parser.add_argument("--reference-characters", type=at_least_one, default=3000, help="how much of them")
    parser.add_argument("--max-tokens", type=at_least_one, default=48, help="tokens of each answer")
    add_server_options(parser)
    options = parser.parse_args(argv)
    console = Console()
    reference = chapters(options.topics)[: options.reference_characters]
    questions = list(itertools.islice(itertools.cycle(QUESTIONS), options.users))

    with server(options.base_url, options.model) as url:
        llm = ChatParrot(base_url=url, model=options.model, max_tokens=options.max_tokens, temperature=0)
        app = copilot(llm, reference)
        log = CallLog(total=options.users, console=console)
        with log.progress:
            answers = app.batch([{"question": question} for question in questions], {"callbacks": [log]})

    for question, answer in list(zip(questions, answers, strict=True))[: len(QUESTIONS)]:
        console.print(question, style="bold", highlight=False)
        console.print(printable(answer), markup=False, highlight=False, soft_wrap=True)
    console.print(log.table())
    usages = [call.usage for call in log.calls.values()]
    read = sum(usage.get("input_tokens", 0) for usage in usages)
    kept = sum((usage.get("input_token_details") or {}).get("cache_read", 0) for usage in usages)
    console.print(f"{kept:,} of {read:,} prompt tokens were not computed again", style="dim", highlight=False)
    log.say_if_random()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
