"""An app as many are: LangChain, OpenAI's class, a few chains; nothing of ours. `two_line_diff.py` switches it.

.venv/bin/pip install langchain-openai
.venv/bin/python recipes/existing_app.py --base-url http://127.0.0.1:8000/v1
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableParallel
from langchain_openai import ChatOpenAI

TEXT = "Parrots repeat what they hear. Servers answer what they are asked. Rivers run to the sea."


def review(llm: Any) -> Runnable[Any, str]:
    """Two readers of one text, and an editor who puts together what they bring."""
    first = ChatPromptTemplate.from_template("Quote the first sentence.\n\n{text}") | llm | StrOutputParser()
    last = ChatPromptTemplate.from_template("Quote the last sentence.\n\n{text}") | llm | StrOutputParser()
    editor = ChatPromptTemplate.from_template("Combine these summaries into one:\n\n{first}\n\n{last}")
    readers = RunnableParallel(first=first, last=last)
    return readers | editor | llm | StrOutputParser()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Two readers and an editor.")
    parser.add_argument("--base-url", default=os.environ.get("PARROT_BASE_URL") or "http://127.0.0.1:8000/v1")
    parser.add_argument("--model", default="builtin:tiny")
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--text", default=TEXT)
    options = parser.parse_args(argv)
    llm = ChatOpenAI(
        base_url=options.base_url,
        api_key=os.environ.get("PARROT_API_KEY") or "none",
        model=options.model,
        max_tokens=options.max_tokens,
        temperature=0,
    )
    print(review(llm).invoke(options.text))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
