"""The openai SDK and one import: calls that read each other on the server, while the app waits once.

    python recipes/openai_references.py
    python recipes/openai_references.py --topics naming objects

Summaries of two texts, and one of both that reads them: three calls in one request. Then a fourth, an ordinary `create`
in the same session, with a reference in its prompt.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from typing import Any

from call_log import random_weights, show_answer
from openai import OpenAI
from reading import chapters
from rich.console import Console
from serving import add_server_options, at_least_one, served_model, server

from parrot_compat.integrations.openai import Graph, prompt, ref, said

TOPICS = ("exceptions", "context-managers")
SUMMARISE = "Summarise this in one sentence:\n\n{text}"


def digest(model: str, texts: Sequence[str], max_tokens: int, session: str) -> Graph:
    graph = Graph(session)
    sampling: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "temperature": 0}
    summaries = [
        graph.call(f"summary {number}", prompt(SUMMARISE, text=text), function="summarise", **sampling)
        for number, text in enumerate(texts, 1)
    ]
    names = [f"summary_{number}" for number in range(1, len(texts) + 1)]
    listed = "\n\n".join(f"{{{name}}}" for name in names)
    both = prompt(f"Combine these summaries into one:\n\n{listed}", **dict(zip(names, summaries, strict=True)))
    graph.call("both", both, **sampling)
    return graph


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="References with the openai SDK.")
    parser.add_argument("--topics", nargs=2, default=TOPICS, metavar="NAME", help="two chapters of Python's reference")
    parser.add_argument("--characters", type=at_least_one, default=600, help="how much of each is read")
    parser.add_argument("--max-tokens", type=at_least_one, default=96, help="tokens of each answer")
    add_server_options(parser)
    options = parser.parse_args(argv)
    console = Console()

    with server(options.base_url, options.model) as url:
        client = OpenAI(base_url=url, api_key=os.environ.get("PARROT_API_KEY") or "none")
        model = served_model(url, options.model)
        texts = [chapters([name])[: options.characters] for name in options.topics]
        graph = digest(model, texts, options.max_tokens, f"digest {os.getpid()}")
        submitted = graph.submit(client, wanted=["both"])
        for call in ("summary 1", "summary 2", "both"):
            show_answer(console, call, submitted.text(call))
        title = prompt("A title for: {it}", it=ref("both", {"truncate": 200}))
        create: Any = client.chat.completions.create
        answer = create(
            model=model, max_tokens=options.max_tokens, temperature=0, **said(title, session=submitted.session)
        )
        show_answer(console, "title", answer.choices[0].message.content or "")
        submitted.close()
    random_weights(console, {model})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
