"""What is said to an OpenAI-compatible server, and what its answers and errors mean to us.

Plain functions between our words and the wire; they know nothing of connections.

The invariant: a request says what the caller asked for and no more, so that what was not asked is decided by the
server's own defaults; fields outside OpenAI's API are sent only where they say something.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import openai

from ..call import Finish, ResolvedSampling, Usage
from ..engine import Embed
from ..errors import BadPrompt, EngineError, EngineLost, NoEngineForModel, ParrotError, PromptTooLong, QueueFull
from ..output_format import AnyJson, Choice, Grammar, JsonSchema, OutputFormat, Regex, ToolCalls
from ..prompt import Chat, Text, Tokens
from ..shown import is_of_the_network, shown_error

__all__ = [
    "chat_request",
    "completion_request",
    "embedding_request",
    "finish_of",
    "is_refusal",
    "our_error",
    "usage_of",
]

# what sampling without the field would do
_NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
_UNSAID_TOKENS = 16  # of a text whose request does not say how many
_ADDED_TOKENS = 8
_TOO_LONG = ("prompt is too long", "context length", "context_length", "context size", "maximum context")


def chat_request(
    model: str, chat: Chat, sampling: ResolvedSampling, context_tokens: int, is_parallel: bool = True
) -> dict[str, Any]:
    request = _request(model, sampling, context_tokens) | {"messages": list(chat.messages)}
    if chat.tools:
        request |= {"tools": list(chat.tools)} | ({} if is_parallel else {"parallel_tool_calls": False})
    if sampling.logprobs is not None:
        request |= {"logprobs": True} | ({"top_logprobs": sampling.logprobs} if sampling.logprobs else {})
    request |= _told_to_template(chat, request.pop("extra_body", {}))
    form = sampling.format
    if isinstance(form, ToolCalls) and form.answer is not None:
        form = form.answer  # the server itself lets its model call tools before that
    match form:
        case AnyJson():
            request["response_format"] = {"type": "json_object"}
        case JsonSchema(schema, strict):
            named = {"name": "answer", "schema": json.loads(schema), "strict": strict}
            request["response_format"] = {"type": "json_schema", "json_schema": named}
        case ToolCalls(tools=tools, is_parallel=is_parallel, is_required=True):
            # of the tools those that may be called: a server need not know how to be told of some among many
            names = {name for name, _ in tools}
            request["tools"] = [tool for tool in chat.tools if tool.get("function", {}).get("name") in names]
            request["tool_choice"] = "required"
            request |= {} if is_parallel else {"parallel_tool_calls": False}
    return request


def completion_request(
    model: str, content: Text | Tokens, sampling: ResolvedSampling, context_tokens: int
) -> dict[str, Any]:
    """Where all that fits is wanted it is said as a number, as far as one is known: what is not said is 16 tokens in
    this API, and a server may refuse more than fits."""
    prompt = content.text if isinstance(content, Text) else list(content.ids)
    request = _request(model, sampling, context_tokens) | {"prompt": prompt}
    if isinstance(content, Text) and sampling.max_tokens >= context_tokens:
        request.pop("max_tokens", None)
        # a token is a byte of the text or more, besides the few that a tokenizer adds
        room = context_tokens - len(content.text.encode("utf-8", "surrogatepass")) - _ADDED_TOKENS
        if context_tokens < sys.maxsize and room > _UNSAID_TOKENS:
            request["max_tokens"] = room
    return request if sampling.logprobs is None else request | {"logprobs": sampling.logprobs}


def embedding_request(model: str, embed: Embed) -> dict[str, Any]:
    """Errors: `BadPrompt` where OpenAI's API has no words for what is asked."""
    if embed.pooling is not None:
        raise BadPrompt("how states are pooled is that server's own affair", param="pooling")
    texts = [content.text for content in embed.inputs if isinstance(content, Text)]
    ids = [list(content.ids) for content in embed.inputs if isinstance(content, Tokens)]
    if len(embed.inputs) not in (len(texts), len(ids)):
        raise BadPrompt("inputs to embed are texts, or token ids, not both", param="input")
    request: dict[str, Any] = {"model": model, "input": texts or ids, "encoding_format": "float"}
    return request if embed.dimensions is None else request | {"dimensions": embed.dimensions}


def _request(model: str, sampling: ResolvedSampling, context_tokens: int) -> dict[str, Any]:
    """`context_tokens` as `max_tokens` is the rest of the context: what a server does that is not told. That is true of
    chats only: a text ends after 16 tokens."""
    request: dict[str, Any] = {
        "model": model,
        "seed": sampling.seed,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if "max_tokens" in sampling.asked or sampling.max_tokens < context_tokens:
        request["max_tokens"] = sampling.max_tokens
    if sampling.stop:
        request["stop"] = list(sampling.stop)
    chosen = {
        name: value
        for name, neutral in _NEUTRAL.items()
        if (value := getattr(sampling, name)) != neutral or name in sampling.asked
    }
    request |= {name: chosen.pop(name) for name in ("temperature", "top_p") if name in chosen}
    request |= {name: value for name in ("presence_penalty", "frequency_penalty") if (value := getattr(sampling, name))}
    if sampling.logit_bias:
        request["logit_bias"] = {str(token): bias for token, bias in sampling.logit_bias}
    chosen |= {"min_tokens": sampling.min_tokens} if sampling.min_tokens else {}
    chosen |= {"ignore_eos": True} if sampling.ignore_eos else {}
    chosen |= {"stop_token_ids": list(sampling.stop_token_ids)} if sampling.stop_token_ids else {}
    chosen |= _vllms_form(sampling.format)
    return request | ({"extra_body": chosen} if chosen else {})


def _told_to_template(chat: Chat, extra: dict[str, Any]) -> dict[str, Any]:
    """What the chat template is to be told, beside other fields that the SDK does not know."""
    told = dict(chat.template)
    request = {"reasoning_effort": told.pop("reasoning_effort")} if "reasoning_effort" in told else {}
    extra |= {"chat_template_kwargs": told} if told else {}
    return request | ({"extra_body": extra} if extra else {})


def _vllms_form(format: OutputFormat | None) -> dict[str, Any]:
    """Forms that OpenAI's API has no word for, in vLLM's."""
    match format:
        case Regex(pattern):
            return {"structured_outputs": {"regex": pattern}}
        case Choice(texts):
            return {"structured_outputs": {"choice": list(texts)}}
        case Grammar(text):
            return {"structured_outputs": {"grammar": text}}
        case _:
            return {}


def finish_of(reason: str, *, has_calls: bool = False) -> Finish:
    """Whatever else made the model end its turn is a stop; some say stop after calls of tools."""
    if reason in (Finish.LENGTH, Finish.CONTENT_FILTER):
        return Finish(reason)
    return Finish.TOOL_CALLS if has_calls else Finish.STOP


def usage_of(usage: Any) -> Usage:
    """Of a usage object; some servers leave fields out, or say what is no count."""
    details = getattr(usage, "prompt_tokens_details", None)
    answer_details = getattr(usage, "completion_tokens_details", None)
    return Usage(
        prompt_tokens=_count(usage, "prompt_tokens") or 0,
        output_tokens=_count(usage, "completion_tokens") or 0,
        cached_tokens=_count(details, "cached_tokens") or 0,
        reasoning_tokens=_count(answer_details, "reasoning_tokens"),
    )


def _count(said: Any, name: str) -> int | None:
    """The SDK checks nothing: what is counted and charged is to be a number of tokens."""
    value = getattr(said, name, None)
    return value if type(value) is int and 0 <= value <= sys.maxsize else None


def our_error(name: str, error: Exception) -> ParrotError:
    """What an error of the SDK, or of the connection under it, means. `name` is the engine's."""
    match error:
        case openai.APITimeoutError() if "Connect" not in type(error.__cause__).__name__:
            # It is there and slow, or we have asked too much of it: the others that it answers are not to die of it.
            return EngineError(f"the server behind engine {name!r} did not answer in time")
        case openai.APIConnectionError():  # that no connection came about in time is among them
            cause = error.__cause__ or error
            if is_of_the_network(cause):
                return EngineLost(f"the server behind engine {name!r} cannot be reached: {cause}")
            return EngineLost(f"the server behind engine {name!r} could not be asked: {shown_error(cause)}")
        case openai.APIStatusError():
            return _status_error(name, error)
        case openai.APIError():
            return EngineError(f"the server behind engine {name!r} failed while it answered: {error.message}")
        case ValueError():
            return EngineError(f"the server behind engine {name!r} says what cannot be read: {error}")
        case _:  # the SDK before 3 hands connection errors of its HTTP library through while it reads a stream
            said = f": {error}" if is_of_the_network(error) else ""
            return EngineLost(f"the connection to engine {name!r} broke: {type(error).__name__}{said}")


def is_refusal(error: BaseException | None) -> bool:
    """Of an error of the SDK: nobody is at the address. A busy server may let a connection wait for too long."""
    return isinstance(error, openai.APIConnectionError) and type(error.__cause__).__name__ == "ConnectError"


def _status_error(name: str, error: openai.APIStatusError) -> ParrotError:
    said = error.body if isinstance(error.body, dict) else {}
    message = str(said.get("message") or error.message)
    if error.status_code in (400, 413, 422):
        if said.get("code") == "context_length_exceeded" or any(words in message.lower() for words in _TOO_LONG):
            return PromptTooLong(message if "prompt is too long" in message else f"prompt is too long: {message}")
        return BadPrompt(message, param=said.get("param"))
    if error.status_code == 404:
        return NoEngineForModel(f"the server behind engine {name!r} does not know what was asked: {message}")
    if error.status_code in (429, 503):
        return QueueFull(f"the server behind engine {name!r} is full: {message}", _retry_after_s(error))
    return EngineError(f"the server behind engine {name!r} answered {error.status_code}: {message}")


def _retry_after_s(error: openai.APIStatusError) -> float:
    try:
        return max(0.0, float(error.response.headers.get("retry-after", "")))
    except ValueError:
        return 1.0
