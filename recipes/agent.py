"""An agent with a tool: LangChain's `create_agent` (a LangGraph) with our model class, and nothing else of ours.

    .venv/bin/pip install langchain
    .venv/bin/python recipes/agent.py
    .venv/bin/python recipes/agent.py --base-url http://127.0.0.1:8000/v1 --question "How are names resolved?"

An agent's next call depends on what a tool of yours returns, so nothing of it can be planned. What helps is what the
server knows: all calls of one run are one session, and each call begins with what the one before has read, so that
only the new end of the prompt is computed (`cached` in the table).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Literal

from call_log import CallLog, printable, show_answer
from langchain.agents import create_agent
from langchain.agents.middleware import ModelRequest, ModelResponse, wrap_model_call
from langchain_core.messages import ToolMessage
from langchain_core.tools import tool
from reading import chapters
from rich.console import Console
from serving import add_server_options, at_least_one, server

from parrot_compat.integrations.langchain import ChatParrot

SYSTEM = "You answer questions about Python. Look into the reference first, then answer in one sentence."
QUESTION = "What does the name of a variable refer to?"


@tool
def read_reference(chapter: Literal["naming", "objects", "import", "execmodel"]) -> str:
    """The beginning of a chapter of Python's language reference."""
    return chapters([chapter])[:600]


@wrap_model_call
def look_up_once(request: ModelRequest, handler: Callable[[ModelRequest], ModelResponse]) -> ModelResponse:
    """One look-up, then an answer: a small model that is left to itself may do neither."""
    has_looked = any(isinstance(message, ToolMessage) for message in request.messages)
    return handler(request.override(tool_choice="none" if has_looked else "any"))


def make_agent(llm: ChatParrot) -> Any:
    return create_agent(llm, [read_reference], system_prompt=SYSTEM, middleware=[look_up_once])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="An agent with a tool.")
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--max-tokens", type=at_least_one, default=60, help="tokens of each answer, or call of a tool")
    add_server_options(parser)
    options = parser.parse_args(argv)
    console = Console()

    with server(options.base_url, options.model) as url:
        llm = ChatParrot(base_url=url, model=options.model, max_tokens=options.max_tokens, temperature=0)
        log = CallLog(total=2, console=console)
        with log.progress:
            asked = {"messages": [("human", options.question)]}
            said = make_agent(llm).invoke(asked, {"callbacks": [log]})["messages"]

    for message in said[1:-1]:
        calls = [f"{call['name']}({call['args']})" for call in getattr(message, "tool_calls", [])]
        text = ", ".join(calls) or f"{' '.join(message.text.split())[:80]}…"
        console.print(printable(f"{message.type:5} {text}"), markup=False, highlight=False)
    show_answer(console, "answer", said[-1].text)
    console.print(log.table())
    log.say_if_random()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
