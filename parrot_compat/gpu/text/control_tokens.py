"""Which control tokens of a rendered chat are the template's own, and how to encode the rest as text.

A chat template and the values in it are both plain strings, so `<|im_end|>` in the rendered text may be either's. Here
the template's control strings are replaced by unguessable aliases before it is rendered: in the rendered text, an alias
is the template's, and a literal control string came from a value, whatever the template did to the values. A clone of
the tokenizer, in which control tokens are *called* by their aliases, then encodes the literal ones as ordinary text.

Knows strings, templates' sources and tokenizer.json; nothing of messages or transformers.
The invariant: `encode` gives as many control ids as there are aliases in the text, and no alias is ever seen outside.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

import tokenizers

from parrot_compat.core.errors import BadPrompt

__all__ = ["ControlTokens", "alias", "encodable", "renamed"]

_PLAIN_WORD = re.compile(r"[\w.-]*")


class ControlTokens:
    """Unguessable stand-ins for the control strings, and the tokenizer that reads them."""

    def __init__(self, tokenizer: tokenizers.Tokenizer) -> None:
        nonce = secrets.token_hex(12)
        special = {at: token for at, token in sorted(tokenizer.get_added_tokens_decoder().items()) if token.special}
        self._alias_of = {token.content: alias(token.content, f"{nonce}n{at}") for at, token in special.items()}
        self._content_of = {alias: content for content, alias in self._alias_of.items()}
        self._control = _any_of(self._alias_of)
        self._alias = _any_of(self._content_of)
        self._normalizer = tokenizer.normalizer if any(token.normalized for token in special.values()) else None
        self._templates: dict[str, str] = {}
        state = json.loads(tokenizer.to_str())
        unknown = _unknown_id(state["model"])
        self._ids = special.keys() - {unknown}
        """Unknown characters become the unknown token in any text: that one controls nothing."""
        self._counted = {self._alias_of[token.content] for at, token in special.items() if at != unknown}
        clone = renamed(state, self._alias_of) | {"decoder": None}  # which never decodes
        self._tokenizer = tokenizers.Tokenizer.from_str(json.dumps(clone))

    def template(self, source: str) -> str:
        """The template with its control strings aliased."""
        return self._templates.setdefault(source, self.replaced(source))

    def replaced(self, value: Any) -> Any:
        """Every control string in the strings of `value` as its alias."""
        return _map_strings(value, lambda text: self._control.sub(lambda found: self._alias_of[found[0]], text))

    def original(self, text: str) -> str:
        return self._alias.sub(lambda found: self._content_of[found[0]], text)

    def are_all_control(self, text: str) -> bool:
        """The original text has exactly the control strings that the aliases stand for."""
        written = [self._content_of[alias] for alias in self._alias.findall(text)]
        original = self.original(text)
        if self._normalizer is not None and self._control.findall(self._normalizer.normalize_str(original)) != written:
            return False
        return self._control.findall(original) == written

    def count_control(self, text: str) -> int:
        return sum(1 for _ in self._control.finditer(text))

    def plain_words(self, values: Any) -> Any:
        """Values of the same form that no template can make a control string from: roles and names stay, text goes."""

        def plain(text: str) -> str:
            return text if _PLAIN_WORD.fullmatch(text) and not self._control.search(text) else "x"

        return _map_strings(values, plain)

    def encode(self, text: str) -> tuple[int, ...]:
        """The aliases to control ids, all else to text. Errors: `BadPrompt` where an alias is not taken for a token."""
        ids = self._tokenizer.encode(encodable(text), add_special_tokens=False).ids
        written = sum(alias in self._counted for alias in self._alias.findall(text))
        if sum(token_id in self._ids for token_id in ids) != written:
            raise BadPrompt("a value contains a control string, and this model's own cannot be told apart from it")
        return tuple(ids)


def alias(content: str, name: str) -> str:
    """Begins and ends like the control string: with a letter or not matters to tokens that must stand alone."""
    return f"{'x' if content[0].isalnum() else '<'}{name}{'x' if content[-1].isalnum() else '>'}"


def _any_of(strings: Iterable[str]) -> re.Pattern[str]:
    """Matches any of the strings, the longest first, as the tokenizer does."""
    wanted = set(strings)
    return re.compile(_tree(wanted) if wanted else r"(?!)")


def _tree(strings: set[str]) -> str:
    """Common beginnings are tried once: a checkpoint may reserve a thousand `<|reserved_special_token_N|>`."""
    by_first: dict[str, set[str]] = {}
    for string in strings - {""}:
        by_first.setdefault(string[0], set()).add(string[1:])
    branches = [re.escape(first) + _tree(rests) for first, rests in by_first.items()]
    if "" in strings:
        return f"(?:{'|'.join(branches)})?" if branches else ""
    return branches[0] if len(branches) == 1 else f"(?:{'|'.join(branches)})"


def _map_strings(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {_map_strings(key, change): _map_strings(item, change) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_map_strings(item, change) for item in value]
    return value


def _unknown_id(model: Mapping[str, Any]) -> int | None:
    """Of a model's state in tokenizer.json."""
    if model.get("unk_token") is not None:
        return cast("int | None", model["vocab"].get(model["unk_token"]))
    return model.get("unk_id")


def renamed(state: Mapping[str, Any], alias_of: Mapping[str, str]) -> dict[str, Any]:
    """The state of the same tokenizer, but these tokens are called by their aliases: same ids, same flags. It encodes
    texts as they are, without tokens of its own around them."""

    def called(content: str) -> str:
        return alias_of.get(content, content)

    model = dict(state["model"])
    if "merges" in model:  # no text may grow into one of them
        model["merges"] = [pair for pair in model["merges"] if not {*pair, "".join(pair)} & alias_of.keys()]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {called(content): token_id for content, token_id in model["vocab"].items()}
    else:  # unigram: the id is the place in the list
        model["vocab"] = [[called(content), score] for content, score in model["vocab"]]
    if model.get("unk_token") is not None:
        model["unk_token"] = called(model["unk_token"])
    added = [token | {"content": called(token["content"])} for token in state["added_tokens"]]
    changed = {"model": model, "added_tokens": added, "post_processor": None, "truncation": None, "padding": None}
    return {**state, **changed}


def encodable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadPrompt(f"the text has half a surrogate pair at character {error.start}") from None
    return text
