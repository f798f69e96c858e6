"""An edit loop: draft a text, then criticise it and revise it, round after round.

    python recipes/edit_loop.py
    python recipes/edit_loop.py --rounds 4 --subject "Tests should be quick. Slow ones wait for the night."

The loop is a plain LCEL chain: `assign` keeps the draft and its critique side by side. Every call reads the text of
the ones before, so an app that waits for each pays the way to the server for each; the planner sends the whole loop in
one request.
"""

from __future__ import annotations

import argparse
from typing import Any

from call_log import CallLog, show_answer
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough
from plan_view import watch_plans
from reading import chapters
from rich.console import Console
from serving import add_server_options, at_least_one, server

from parrot_compat.integrations.langchain import ChatParrot

DRAFT = ChatPromptTemplate.from_template("Summarise this in two sentences:\n\n{subject}")
CRITICISE = ChatPromptTemplate.from_template("Name the weakest point of this text, in one sentence:\n\n{draft}")
REVISE = ChatPromptTemplate.from_template(
    "The text:\n\n{draft}\n\nIts weakest point: {critique}\n\nWrite the text again, better, and change nothing else."
)


def edit_loop(llm: ChatParrot, rounds: int) -> Runnable[Any, str]:
    """From {"subject": …} to the last draft."""

    def call(prompt: ChatPromptTemplate, name: str) -> Runnable[Any, str]:
        return prompt | llm.with_config(run_name=name) | StrOutputParser()

    chain: Runnable[Any, Any] = RunnablePassthrough.assign(draft=call(DRAFT, "draft"))
    for _ in range(rounds):
        chain = chain | RunnablePassthrough.assign(critique=call(CRITICISE, "criticise"))
        chain = chain | RunnablePassthrough.assign(draft=call(REVISE, "revise"))
    return chain.pick("draft")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Draft, criticise, revise.")
    parser.add_argument("--subject", default=chapters(["exceptions"])[:600], help="a text to write about")
    parser.add_argument("--rounds", type=at_least_one, default=2)
    parser.add_argument("--max-tokens", type=at_least_one, default=64, help="tokens of each answer")
    add_server_options(parser)
    options = parser.parse_args(argv)
    console = Console()

    with server(options.base_url, options.model) as url:
        llm = ChatParrot(base_url=url, model=options.model, max_tokens=options.max_tokens, temperature=0)
        log = CallLog(total=1 + 2 * options.rounds, console=console)
        with log.progress, watch_plans() as plans:
            text = edit_loop(llm, options.rounds).invoke({"subject": options.subject}, {"callbacks": [log]})

    plans.show(console, log)
    show_answer(console, "the last draft", text)
    log.say_if_random()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
