"""Summarise a long text with LlamaIndex's `tree_summarize`: a call for each stretch, then one over their summaries.

    python recipes/llamaindex_summary.py                       # chapters of Python's reference, a server of its own
    python recipes/llamaindex_summary.py FILE --mode refine    # or compact, accumulate, compact_accumulate

It needs LlamaIndex (scripts/setup llamaindex).

The app is ordinary LlamaIndex; `ParrotLLM` is all that is ours. LlamaIndex asks its calls one after the other; the
planner has sent all of them ahead in one request, so they run side by side, and their answers are pushed back.
"""

from __future__ import annotations

import argparse

from call_log import random_weights, show_answer
from llama_index.core import Document, PromptTemplate, Settings, SummaryIndex
from llama_index.core.node_parser import SentenceSplitter
from reading import read_text
from rich.console import Console
from serving import add_server_options, at_least_one, server

from parrot_compat.integrations.llamaindex import ParrotLLM, stats

MODES = ("tree_summarize", "refine", "compact", "accumulate", "compact_accumulate", "simple_summarize")
SUMMARISE = PromptTemplate("{query_str} Summarise it in two sentences:\n\n{context_str}")
REFINE = PromptTemplate(
    "The summary so far:\n\n{existing_answer}\n\nThe next part:\n\n{context_msg}\n\nGive the new summary."
)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="A summary with LlamaIndex.")
    parser.add_argument("file", nargs="?", help="a text file; not given: chapters of Python's reference")
    parser.add_argument(
        "--topics", nargs="+", default=["exceptions", "context-managers"], metavar="NAME", help="which chapters"
    )
    parser.add_argument("--mode", choices=MODES, default=MODES[0], help="LlamaIndex's response mode")
    parser.add_argument("--query", default="What is this text about?")
    parser.add_argument("--window", type=at_least_one, default=512, help="tokens that one call may read and write")
    parser.add_argument("--max-tokens", type=at_least_one, default=64, help="tokens of each answer")
    add_server_options(parser)
    options = parser.parse_args(argv)
    console = Console()
    text = read_text(options.file, options.topics)

    with server(options.base_url, options.model) as url:
        llm = ParrotLLM(
            base_url=url,
            model=options.model,
            max_tokens=options.max_tokens,
            temperature=0,
            context_window=options.window,
        )
        Settings.llm = llm
        model = llm.metadata.model_name
        splitter = SentenceSplitter(chunk_size=options.window // 4, chunk_overlap=0)
        index = SummaryIndex.from_documents([Document(text=text)], transformations=[splitter])
        before = stats()
        engine = index.as_query_engine(
            response_mode=options.mode, summary_template=SUMMARISE, text_qa_template=SUMMARISE, refine_template=REFINE
        )
        answer = engine.query(options.query)
        now = stats()

    show_answer(console, "answer", str(answer))
    came = {name: getattr(now, name) - getattr(before, name) for name in ("pushed", "claimed", "direct", "wasted")}
    calls = came["pushed"] + came["claimed"] + came["direct"]
    told = ", ".join(f"{count} {name}" for name, count in came.items())
    console.print(f"{calls} calls in {now.plans - before.plans} plans: {told}", highlight=False)
    random_weights(console, {model})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
