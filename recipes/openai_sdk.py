"""OpenAI's own SDK, unchanged, against a parrot_compat server: only `base_url` is ours.

python recipes/openai_sdk.py
python recipes/openai_sdk.py --base-url http://127.0.0.1:8000/v1
"""

from __future__ import annotations

import argparse
import os

from call_log import printable
from openai import OpenAI
from rich.console import Console
from serving import add_server_options, at_least_one, server

PROMPT = "Repeat after me: Parrots repeat what they hear, and servers answer what they are asked."


def show(console: Console, title: str, text: str) -> None:
    console.print(title, style="bold", highlight=False)
    console.print(printable(text), markup=False, highlight=False, soft_wrap=True)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="The openai SDK against parrot_compat.")
    parser.add_argument("--max-tokens", type=at_least_one, default=24, help="tokens of each answer")
    parser.add_argument("--prompt", default=PROMPT)
    add_server_options(parser)
    options = parser.parse_args(argv)
    console = Console()
    limit = options.max_tokens

    with server(options.base_url, options.model) as url:
        client = OpenAI(base_url=url, api_key=os.environ.get("PARROT_API_KEY") or "none")
        models = [model.id for model in client.models.list()]
        model = options.model or models[0]
        show(console, "models", ", ".join(models))

        answer = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": options.prompt}],
            max_tokens=limit,
            temperature=0,
        )
        show(console, f"chat ({answer.choices[0].finish_reason})", answer.choices[0].message.content or "")

        console.print("chat, streamed", style="bold", highlight=False)
        stream = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": options.prompt}],
            max_tokens=limit,
            temperature=0,
            stream=True,
            stream_options={"include_usage": True},
        )
        usage = None
        for chunk in stream:
            usage = chunk.usage or usage
            for choice in chunk.choices:
                console.print(printable(choice.delta.content or ""), end="", markup=False, highlight=False)
        console.print()
        if usage is not None:
            cached = (usage.prompt_tokens_details and usage.prompt_tokens_details.cached_tokens) or 0
            counts = f"{usage.prompt_tokens} prompt tokens ({cached} cached), {usage.completion_tokens} drawn"
            console.print(counts, style="dim", highlight=False)

        completion = client.completions.create(
            model=model, prompt="Parrots repeat because", max_tokens=limit, temperature=0
        )
        show(console, "completion", completion.choices[0].text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
