"""Answer questions from a text with LlamaIndex: an index of embeddings, retrieval, and an answer over what was found.

    python recipes/llamaindex_rag.py
    python recipes/llamaindex_rag.py "What does the text say about 'yield'?" --topics yield try with --top-k 3

It needs LlamaIndex (scripts/setup llamaindex).

Two settings are ours, `Settings.llm` and `Settings.embed_model`; the rest is what LlamaIndex's own tutorial does.
"""

from __future__ import annotations

import argparse

from call_log import printable, random_weights, show_answer
from llama_index.core import Document, PromptTemplate, Settings, VectorStoreIndex
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.schema import MetadataMode
from reading import chapters
from rich.console import Console
from serving import add_server_options, at_least_one, server

from parrot_compat.integrations.llamaindex import ParrotEmbedding, ParrotLLM

TOPICS = ("assert", "break", "continue", "del", "pass", "raise", "return", "while")
QUESTION = "Which statement terminates the nearest enclosing loop, break or continue?"
ANSWER = PromptTemplate("Text:\n{context_str}\n\nQuestion: {query_str}")
"""Shorter than LlamaIndex's own, whose rules a small model repeats."""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Retrieval with LlamaIndex.")
    parser.add_argument("question", nargs="?", default=QUESTION)
    parser.add_argument("--topics", nargs="+", default=TOPICS, metavar="NAME", help="chapters of Python's reference")
    parser.add_argument("--top-k", type=at_least_one, default=2, help="pieces that an answer reads")
    parser.add_argument("--piece-tokens", type=at_least_one, default=256)
    parser.add_argument("--max-tokens", type=at_least_one, default=64, help="tokens of the answer")
    add_server_options(parser)
    options = parser.parse_args(argv)
    console = Console()
    documents = [Document(text=chapters([name]), metadata={"topic": name}) for name in options.topics]

    with server(options.base_url, options.model) as url:
        llm = ParrotLLM(base_url=url, model=options.model, max_tokens=options.max_tokens, temperature=0)
        Settings.llm, Settings.embed_model = llm, ParrotEmbedding(base_url=url, model=options.model)
        model = llm.metadata.model_name
        splitter = SentenceSplitter(chunk_size=options.piece_tokens, chunk_overlap=0)
        index = VectorStoreIndex.from_documents(documents, transformations=[splitter])
        engine = index.as_query_engine(similarity_top_k=options.top_k, text_qa_template=ANSWER)
        answer = engine.query(options.question)

    console.print("found", style="bold")
    for found in answer.source_nodes:
        text = printable(found.node.get_content(metadata_mode=MetadataMode.NONE)).split("\n")[0]
        topic = found.node.metadata["topic"]
        console.print(f"  {found.score:.3f}  {topic}: {text[:80]}", markup=False, highlight=False)
    show_answer(console, "answer", str(answer))
    random_weights(console, {model})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
