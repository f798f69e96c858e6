"""The two classic ways to summarise a long text, as LangChain chains: refine, and map-reduce.

Each chain is ordinary LCEL: what a LangChain user would write, with the prompts of LangChain's own summarisation
chains. Parts and openings are inputs of the chain.
"""

from __future__ import annotations

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnablePassthrough

from ..clients import Client
from ..text import FreshText

__all__ = ["inputs", "map_reduce", "part_first_refine", "refine"]

OPENING_TOKENS = 24
SYSTEM = ("system", "{opening}\nYou summarise documents. Be brief.")
BEGIN = "Write a concise summary of the following:\n\n{part}\n\nCONCISE SUMMARY:"
REFINE = """Your job is to produce a final summary.
We have provided an existing summary up to a certain point: {summary}
We have the opportunity to refine the existing summary (only if needed) with some more context below.
------------
{part}
------------
Given the new context, refine the original summary.
If the context isn't useful, return the original summary."""
PART_FIRST = """Your job is to produce a final summary. The next part of the document:
------------
{part}
------------
The summary up to this part: {summary}
Refine it with the part above; if the part isn't useful, return it as it is."""

Chain = Runnable[dict[str, str], str]


def inputs(text: FreshText, parts: int, part_tokens: int) -> dict[str, str]:
    """The opening and the parts of one document."""
    pieces = {f"part_{number}": text.passage(part_tokens) for number in range(parts)}
    return {"opening": text.passage(OPENING_TOKENS), **pieces}


def refine(client: Client, parts: int, max_tokens: int, template: str = REFINE) -> Chain:
    """`parts` calls, each of which reads one more part and the summary so far."""

    def step(number: int, *, streamed: bool = False) -> Runnable[dict[str, str], str]:
        prompt = _prompt(template if number else BEGIN, number)
        model = client.chat(max_tokens, name=f"refine-{number}", streamed=streamed)
        return prompt | model | StrOutputParser()

    chain: Runnable[dict[str, str], dict[str, str]] = RunnablePassthrough()
    for number in range(parts - 1):
        chain = chain | RunnablePassthrough.assign(summary=step(number))
    return chain | step(parts - 1, streamed=True)


def part_first_refine(client: Client, parts: int, max_tokens: int) -> Chain:
    """The same with the part before the summary: only the summary has to be read when it is there."""
    return refine(client, parts, max_tokens, PART_FIRST)


def map_reduce(client: Client, parts: int, max_tokens: int) -> Chain:
    """`parts` calls side by side, then one that reads all their answers."""
    maps = {
        f"summary_{number}": _prompt(BEGIN, number) | client.chat(max_tokens, name=f"map-{number}") | StrOutputParser()
        for number in range(parts)
    }
    holes = "\n\n".join(f"{{summary_{number}}}" for number in range(parts))
    whole = f"The following is a set of summaries:\n{holes}\nTake these and distill them into one final summary."
    reduce = ChatPromptTemplate.from_messages([SYSTEM, ("human", whole)])
    return (
        RunnablePassthrough.assign(**maps)
        | reduce
        | client.chat(max_tokens, name="reduce", streamed=True)
        | StrOutputParser()
    )


def _prompt(template: str, number: int) -> ChatPromptTemplate:
    return ChatPromptTemplate.from_messages([SYSTEM, ("human", template.replace("{part}", f"{{part_{number}}}"))])
