"""/openapi.json: what each endpoint takes and answers, in full.

Bodies are read and written by hand, within limits and quickly, so FastAPI has to be told what is in them. It knows the
endpoints by path and nothing of what they do.

The invariant: every path that is described has its success and its errors described, and nothing is described that is
not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from .anthropic import answers_schema as anthropics
from .anthropic.messages_schema import CountTokensRequest, MessagesRequest
from .bodies import Schema
from .openai import answers_schema as told
from .openai.chat_schema import ChatRequest
from .openai.completions_schema import CompletionRequest
from .openai.embeddings_schema import EmbeddingList, EmbeddingRequest
from .openai.tokenize_schema import DetokenizeRequest, TokenizeRequest
from .parrot import answers_schema as ours
from .parrot.calls import CancelRequest
from .parrot.calls_schema import CallsRequest
from .parrot.graphs_schema import CloseRequest, GraphRequest
from .parrot.sessions import SessionRequest
from .parrot.variables import TextRequest, VariableRequest
from .responses.answers_schema import ResponseAnswer, ResponseEvent
from .responses.responses_schema import ResponsesRequest

__all__ = ["describe"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Endpoint:
    takes: type[Schema] | None = None
    gives: type[BaseModel] | None = None
    streams: type[BaseModel] | None = None
    """The data of each server-sent event."""
    fails: type[BaseModel] = told.ErrorAnswer
    gives_503: bool = False
    """A 503 tells the same as a 200, and is no error."""
    query: tuple[tuple[str, dict[str, Any]], ...] = ()


_SESSION = "/v1/parrot/sessions/{session}"
_VARIABLE = f"{_SESSION}/variables/{{variable}}"
_OBJECTIVE = ("objective", {"type": "string", "enum": ["latency", "throughput", "background"]})
_WAIT = ("wait", {"type": "number", "minimum": 0, "maximum": 600})

_ENDPOINTS: dict[tuple[str, str], _Endpoint] = {
    ("post", "/v1/chat/completions"): _Endpoint(
        takes=ChatRequest, gives=told.ChatCompletion, streams=told.ChatCompletionChunk
    ),
    ("post", "/v1/responses"): _Endpoint(takes=ResponsesRequest, gives=ResponseAnswer, streams=ResponseEvent),
    ("post", "/v1/completions"): _Endpoint(
        takes=CompletionRequest, gives=told.TextCompletion, streams=told.TextCompletion
    ),
    ("post", "/v1/messages"): _Endpoint(
        takes=MessagesRequest,
        gives=anthropics.MessageAnswer,
        streams=anthropics.MessageEvent,
        fails=anthropics.AnthropicErrorAnswer,
    ),
    ("post", "/v1/messages/count_tokens"): _Endpoint(
        takes=CountTokensRequest, gives=anthropics.TokenCount, fails=anthropics.AnthropicErrorAnswer
    ),
    ("post", "/v1/embeddings"): _Endpoint(takes=EmbeddingRequest, gives=EmbeddingList),
    ("get", "/v1/models"): _Endpoint(gives=told.ModelList),
    ("get", "/v1/models/{model}"): _Endpoint(gives=told.ModelDescription),
    ("post", "/tokenize"): _Endpoint(takes=TokenizeRequest, gives=told.Tokenized),
    ("post", "/detokenize"): _Endpoint(takes=DetokenizeRequest, gives=told.Detokenized),
    ("get", "/health"): _Endpoint(gives=told.Health, gives_503=True),
    ("get", "/version"): _Endpoint(gives=told.Version),
    ("get", "/metrics"): _Endpoint(),
    ("get", "/v1/parrot"): _Endpoint(gives=ours.Capabilities),
    ("post", "/v1/parrot/sessions"): _Endpoint(takes=SessionRequest, gives=ours.SessionAnswer),
    ("get", _SESSION): _Endpoint(gives=ours.SessionDescription),
    ("delete", _SESSION): _Endpoint(gives=ours.SessionDeleted),
    ("post", f"{_SESSION}/cancel"): _Endpoint(takes=CancelRequest, gives=ours.SessionAnswer),
    ("post", f"{_SESSION}/calls"): _Endpoint(takes=CallsRequest, gives=ours.CallsAnswer),
    ("post", f"{_SESSION}/variables"): _Endpoint(takes=VariableRequest, gives=ours.VariableAnswer),
    ("get", _VARIABLE): _Endpoint(gives=ours.VariableAnswer, query=(_WAIT, _OBJECTIVE)),
    ("put", _VARIABLE): _Endpoint(takes=TextRequest, gives=ours.VariableAnswer),
    ("get", f"{_VARIABLE}/stream"): _Endpoint(streams=ours.StreamEvent, query=(_OBJECTIVE,)),
    ("post", "/v1/parrot/graphs"): _Endpoint(takes=GraphRequest, gives=ours.GraphAnswer, streams=ours.StreamEvent),
    ("post", "/v1/parrot/graphs/{graph}/close"): _Endpoint(takes=CloseRequest, gives=ours.GraphClosed),
}


def describe(app: FastAPI, *, has_keys: bool) -> dict[str, Any]:
    """The document; FastAPI's own knows the paths and their parameters."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    there = {at: endpoint for at, endpoint in _ENDPOINTS.items() if at[1] in document["paths"]}
    # of an answer a field with a default may be missing, which is what "validation" says
    models = {model for endpoint in there.values() for model in _models(endpoint)}
    wanted: Any = [(model, "validation") for model in sorted(models, key=lambda model: model.__name__)]
    _, definitions = models_json_schema(wanted, ref_template="#/components/schemas/{model}")
    document["components"] = {"schemas": definitions["$defs"]}
    if has_keys:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
    for (method, path), endpoint in there.items():
        operation = document["paths"][path][method]
        operation["responses"] = _responses(endpoint)
        if endpoint.takes is not None:
            content = {"application/json": {"schema": _reference(endpoint.takes)}}
            operation["requestBody"] = {"required": True, "content": content}
        for name, schema in endpoint.query:
            operation.setdefault("parameters", []).append({"name": name, "in": "query", "schema": schema})
    return document


def _models(endpoint: _Endpoint) -> list[type[BaseModel]]:
    return [model for model in (endpoint.takes, endpoint.gives, endpoint.streams, endpoint.fails) if model is not None]


def _responses(endpoint: _Endpoint) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if endpoint.gives is not None:
        content["application/json"] = {"schema": _reference(endpoint.gives)}
    if endpoint.streams is not None:
        # one server-sent event, as OpenAPI 3.2 describes a stream by its items
        data = {
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"anyOf": [_reference(endpoint.streams), _reference(endpoint.fails)]},
        }
        schema = {"type": "object", "required": ["data"], "properties": {"data": data}}
        content["text/event-stream"] = {"schema": schema}
    if not content:
        content["text/plain"] = {"schema": {"type": "string"}}
    errors = {"application/json": {"schema": _reference(endpoint.fails)}}
    unwell = {"503": {"description": "Not now", "content": content}} if endpoint.gives_503 else {}
    return {
        "200": {"description": "As asked", "content": content},
        **unwell,
        "default": {"description": "Why not", "content": errors},
    }


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}
