"""What a verb asks for, checked before it begins: its context, its tokens, its sampling, its vector.

It knows the engine's config and nothing of contexts or sequences. Whatever passes here can be computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from parrot_compat.core.engine import ContextId, Embed, Fill, Generate
from parrot_compat.core.engine_front import Command, Truncate
from parrot_compat.core.errors import BadPrompt, PromptTooLong
from parrot_compat.core.prompt import Content, Tokens

from .config import ResolvedConfig
from .drawing.penalties import check_sampling

__all__ = ["checked_ids", "hurried", "own_context", "place_of"]


def own_context(command: int) -> ContextId:
    """Of a verb that names none. The fleet's ids are positive."""
    return ContextId(-command)


def place_of(command: Command) -> ContextId:
    """The context in whose line a verb stands."""
    verb = command.verb
    assert isinstance(verb, Fill | Generate | Embed | Truncate)
    return own_context(command.id) if isinstance(verb, Embed) else verb.context


def hurried(command: Command, slack_s: float) -> Command:
    """The same with no more slack than this."""
    verb = command.verb
    if not isinstance(verb, Fill | Generate) or verb.scope.slack_s <= slack_s:
        return command
    return replace(command, verb=replace(verb, scope=replace(verb.scope, slack_s=slack_s)))


def checked_ids(config: ResolvedConfig, verb: Fill | Generate | Embed, held: int) -> tuple[int, ...]:
    """The token ids of a verb's content, `held` tokens before them. Errors: `BadPrompt`, `PromptTooLong`."""
    if isinstance(verb, Embed):
        return _to_embed(config, verb)
    ids = _known_ids(config, verb.content)
    tokens = held + len(ids)
    if not tokens and isinstance(verb, Generate):
        raise BadPrompt("the prompt is empty: there is no token to go on from")
    if tokens + 1 > config.context_tokens:
        raise PromptTooLong(
            f"prompt is too long: {tokens} tokens leave no room for an answer in the context of "
            f"{config.context_tokens} tokens of engine {config.name!r}"
        )
    if isinstance(verb, Generate):
        check_sampling(verb.sampling, config.checkpoint.vocab_size)
        _check_stop_tokens(verb.sampling.stop_token_ids)
    return ids


def _check_stop_tokens(ids: Sequence[int]) -> None:
    """One behind the vocabulary is never drawn; one before it would be taken for another, counted from the end."""
    if ids and min(ids) < 0:
        raise BadPrompt(f"stop_token_ids: {min(ids)} is no token id", "stop_token_ids")


def _to_embed(config: ResolvedConfig, embed: Embed) -> tuple[int, ...]:
    [content] = embed.inputs
    ids = _known_ids(config, content)
    if not ids:
        raise BadPrompt("an input to embed is empty", param="input")
    if len(ids) > config.context_tokens:
        raise PromptTooLong(
            f"prompt is too long: {len(ids)} tokens to embed; the context of engine {config.name!r} is "
            f"{config.context_tokens} tokens"
        )
    most = config.checkpoint.hidden_size
    if embed.dimensions is not None and not 1 <= embed.dimensions <= most:
        raise BadPrompt(f"dimensions must be from 1 to {most}, not {embed.dimensions}", "dimensions")
    return ids


def _known_ids(config: ResolvedConfig, content: Content) -> tuple[int, ...]:
    if not isinstance(content, Tokens):
        raise BadPrompt(f"engine {config.name!r} takes token ids, not {type(content).__name__}")
    for id in (min(content.ids), max(content.ids)) if content.ids else ():
        if not 0 <= id < config.checkpoint.vocab_size:
            raise BadPrompt(f"token id {id} is not in the vocabulary of {config.checkpoint.vocab_size} tokens")
    return content.ids
