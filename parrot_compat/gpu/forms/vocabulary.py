"""The vocabulary as the library is given it: no text in it is a control token.

The library writes the text that a grammar forces as the tokenizer does, which makes a token of the name that it has.
Where a schema says "<|im_end|>" that would be the end of the answer, and a "<tool_call>" would be no text at all. So
those tokens are called otherwise there; a grammar means them by their ids.

It knows tokenizer.json; nothing of the library but which tokens are no text for it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import Any

from parrot_compat.gpu.text.control_tokens import alias, renamed

__all__ = ["without_names"]


def without_names(tokenizer: str) -> tuple[str, dict[str, int]]:
    """The text of a tokenizer.json with control tokens that no text can name, and their ids by their own names."""
    state: dict[str, Any] = json.loads(tokenizer)
    ids = {token["content"]: token["id"] for token in state["added_tokens"] if _is_no_text(token)}
    nonce = secrets.token_hex(12)
    aliases = {name: alias(name, f"{nonce}n{id}") for name, id in ids.items()}
    return json.dumps(renamed(state, aliases)), ids


def _is_no_text(token: Mapping[str, Any]) -> bool:
    """For the library, whatever the tokenizer says: Qwen's <tool_call> among them."""
    name: str = token["content"]
    return token["special"] or (name.startswith("<") and name.endswith(">"))
