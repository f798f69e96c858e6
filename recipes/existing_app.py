"""An app as many are: LangChain, OpenAI's class, a few chains; nothing of ours. `two_line_diff.py` switches it.

pip install langchain-openai
python recipes/existing_app.py --base-url http://127.0.0.1:8000/v1
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import Runnable, RunnableParallel, RunnablePassthrough
from langchain_openai import ChatOpenAI


def review(llm: Any) -> Runnable[Any, str]:
    """Two readers of one text, and an editor who has heard both."""
    fan = ChatPromptTemplate.from_template("What is good about this text?\n\n{text}") | llm | StrOutputParser()
    critic = ChatPromptTemplate.from_template("What is bad about this text?\n\n{text}") | llm | StrOutputParser()
    editor = ChatPromptTemplate.from_template(
        "A text:\n\n{text}\n\nIts fan: {fan}\n\nIts critic: {critic}\n\nWhat should be changed first?"
    )
    readers = RunnableParallel(fan=fan, critic=critic, text=RunnablePassthrough())
    return readers | editor | llm | StrOutputParser()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Two readers and an editor.")
    parser.add_argument("--base-url", default=os.environ.get("PARROT_BASE_URL", "http://127.0.0.1:8000/v1"))
    parser.add_argument("--model", default="builtin:tiny")
    parser.add_argument("--max-tokens", type=int, default=16)
    parser.add_argument("--text", default="Parrots repeat what they hear. Servers answer what they are asked.")
    options = parser.parse_args(argv)
    llm = ChatOpenAI(
        base_url=options.base_url,
        api_key="none",
        model=options.model,
        max_tokens=options.max_tokens,
        temperature=0,
    )
    print(review(llm).invoke(options.text))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
