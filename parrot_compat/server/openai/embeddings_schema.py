"""The body of POST /v1/embeddings, the texts that it stands for, and the answer.

It knows nothing of how a text becomes a vector. The invariant: inputs keep their order, and every one of them becomes
exactly one content.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from parrot_compat.core.prompt import Text, Tokens
from parrot_compat.server.bodies import Items, Schema
from parrot_compat.server.errors import invalid

from .answers_schema import Answered
from .sampling_schema import TokenId, ignored_fields, one_of

__all__ = ["Embedding", "EmbeddingList", "EmbeddingRequest", "EmbeddingUsage"]

MOST_INPUTS = 2048


class EmbeddingRequest(Schema):
    input: Annotated[
        str | Items[str] | Items[TokenId] | Items[Items[TokenId]],
        one_of("a string, a list of strings, a list of token ids, or a list of such lists"),
    ]
    model: Annotated[str, Field(max_length=512)] | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    """Of each vector: its first ones, brought to length 1 again."""
    pooling: Literal["mean", "last"] | None = None
    """How the states of the tokens become one vector; left out, as the checkpoint says."""
    user: str | None = None
    """Whose it is, for logs; nothing is kept of it."""

    def contents(self) -> list[Text | Tokens]:
        """Errors: `ApiError` 400."""
        given = self.input
        if isinstance(given, str):
            contents: list[Text | Tokens] = [Text(given)]
        elif given and isinstance(given[0], int):
            contents = [Tokens(tuple(token for token in given if isinstance(token, int)))]
        else:
            contents = [
                Text(item) if isinstance(item, str) else Tokens(tuple(item))
                for item in given
                if not isinstance(item, int)
            ]
        if not contents:
            raise invalid("input", "an empty list says nothing")
        if len(contents) > MOST_INPUTS:
            raise invalid("input", f"at most {MOST_INPUTS} inputs, not {len(contents)}")
        for index, content in enumerate(contents):
            if not (content.text if isinstance(content, Text) else content.ids):
                raise invalid("input" if isinstance(given, str) else f"input[{index}]", "is empty")
        return contents

    def ignored(self) -> list[str]:
        return ignored_fields(self, {})


class Embedding(Answered):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Answered):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(Answered):
    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
