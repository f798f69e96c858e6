"""The openai SDK and one import: calls that read each other on the server, while the app waits once.

    python recipes/openai_references.py --subject parrots

An outline, two sections that read it, an ending that reads both sections: four calls in one request. Then a fifth, an
ordinary `create` in the same session, with a reference in its prompt.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from call_log import random_weights, show_answer
from openai import OpenAI
from rich.console import Console
from serving import add_server_options, server

from parrot_compat.integrations.openai import Graph, prompt, ref, said


def essay(model: str, subject: str, max_tokens: int, session: str) -> Graph:
    graph = Graph(session)
    sampling: dict[str, Any] = {"model": model, "max_tokens": max_tokens, "temperature": 0}
    outline = graph.call("outline", prompt("Outline an essay on {subject}.", subject=subject), **sampling)
    section = "Write section {number} of this outline:\n{outline}"
    first = graph.call("first", prompt(section, number="1", outline=outline), function="section", **sampling)
    second = graph.call("second", prompt(section, number="2", outline=outline), function="section", **sampling)
    ending = prompt("{first}\n\n{second}\n\nEnd this essay in one sentence.", first=first, second=second)
    graph.call("ending", ending, **sampling)
    return graph


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="References with the openai SDK.")
    parser.add_argument("--subject", default="why parrots repeat what they hear")
    parser.add_argument("--max-tokens", type=int, default=16, help="tokens of each answer")
    add_server_options(parser)
    options = parser.parse_args(argv)
    console = Console()

    with server(options.base_url, options.model) as url:
        client = OpenAI(base_url=url, api_key=os.environ.get("PARROT_API_KEY", "none"))
        model = options.model or client.models.list().data[0].id
        session = f"essay {os.getpid()}"
        submitted = essay(model, options.subject, options.max_tokens, session).submit(client, wanted=["ending"])
        for call in ("outline", "first", "second", "ending"):
            show_answer(console, call, submitted.text(call))
        title = prompt("A title for: {outline}", outline=ref("outline", {"truncate": 200}))
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
