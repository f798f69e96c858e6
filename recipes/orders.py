"""Notes on orders become forms, and each customer is answered: two calls for a note, and the second reads the form.

    python recipes/orders.py
    python recipes/orders.py --count 12 --base-url http://127.0.0.1:8000/v1

The form is a JSON object, and the server holds the answer to its schema while it is written. Two fields of it go into
the next prompt, on the server: the planner knows which, so all calls for all notes are one request. The notes are made
of values that are drawn, so the table can say which were read as they were written. (builtin:tiny was trained to find
values in notes worded as plainly as these, and to repeat; of other wordings it makes little.)
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from operator import itemgetter
from random import Random
from typing import Any

from call_log import CallLog, printable
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough
from plan_view import watch_plans
from rich import box
from rich.console import Console
from rich.table import Table
from serving import add_server_options, at_least_one, server

from parrot_compat.integrations.langchain import ChatParrot

FORM = {
    "title": "Form",
    "type": "object",
    "properties": {name: {"type": "string"} for name in ("name", "city", "code")},
    "required": ["name", "city", "code"],
}
READ = ChatPromptTemplate.from_template("Extract 'name', 'city' and 'code' as JSON.\n\n{note}")
ANSWER = ChatPromptTemplate.from_template("Repeat after me:\n\nDear {name}, your order {code} is on its way.")

NAMES = ("Ada Byron", "Grace Murray", "Alan Mathison", "Barbara Jane", "Donald Ervin", "Edsger Wybe", "Frances Allen")
CITIES = ("Turku", "Porto", "Leeds", "Graz", "Osaka", "Quito", "Bergen", "Malmo")
WORDINGS = (
    "The name is {name}. The city is {city}. The code is {code}.",
    "name: {name}\ncode: {code}\ncity: {city}",
    "This order has the code {code} and the city {city} and the name {name}.",
)


def drawn(count: int, seed: int = 7) -> list[dict[str, str]]:
    """What notes say: the same for the same seed."""
    draw = Random(seed)
    return [
        {
            "name": draw.choice(NAMES),
            "city": draw.choice(CITIES),
            "code": f"{chr(65 + draw.randrange(26))}{chr(65 + draw.randrange(26))}-{draw.randrange(100, 9999)}",
        }
        for _ in range(count)
    ]


def notes(facts: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """What the app is given."""
    return [{"note": WORDINGS[number % len(WORDINGS)].format(**said)} for number, said in enumerate(facts)]


def answering(llm: ChatParrot) -> Runnable[list[dict[str, str]], list[dict[str, Any]]]:
    """From [{"note": …}, …] to each with its form and its answer."""
    reader, writer = (llm.model_copy(update={"name": name}) for name in ("read", "answer"))
    form = READ | reader.with_structured_output(FORM)
    answer: Runnable[Any, str] = itemgetter("form") | ANSWER | writer | StrOutputParser()
    one = RunnablePassthrough.assign(form=form) | RunnablePassthrough.assign(answer=answer)
    return one.map()


def right(said: Mapping[str, str], made: Mapping[str, Any]) -> bool:
    """It was read as it was written, and answered with what was read."""
    return bool(made["form"] == said and f"{said['name']}, your order {said['code']} " in made["answer"])


def show(console: Console, facts: Sequence[Mapping[str, str]], made: Sequence[Mapping[str, Any]]) -> None:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in ("note", "read as", "answered", "right"):
        table.add_column(title)
    for said, one in zip(facts, made, strict=True):
        read = "\n".join(f"{name}: {value}" for name, value in one["form"].items())
        texts = (printable(text) for text in (one["note"], read, one["answer"].strip()))
        table.add_row(*texts, "yes" if right(said, one) else "no")
    console.print(table)
    count = sum(right(said, one) for said, one in zip(facts, made, strict=True))
    console.print(f"{count} of {len(facts)} notes were read and answered right", highlight=False)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Notes become forms, and are answered.")
    parser.add_argument("--count", type=at_least_one, default=6, help="notes (6)")
    parser.add_argument("--seed", type=int, default=7, help="of what is in them")
    parser.add_argument("--max-tokens", type=at_least_one, default=64, help="tokens of each answer")
    add_server_options(parser)
    options = parser.parse_args(argv)
    console = Console()
    facts = drawn(options.count, options.seed)

    with server(options.base_url, options.model) as url:
        llm = ChatParrot(base_url=url, model=options.model, max_tokens=options.max_tokens, temperature=0)
        log = CallLog(total=2 * options.count, console=console)
        with log.progress, watch_plans() as plans:
            made = answering(llm).invoke(notes(facts), {"callbacks": [log]})

    plans.show(console, log)
    show(console, facts, made)
    log.say_if_random()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
