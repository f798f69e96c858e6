"""What LangChain's OpenAI classes are constructed with, as the fields of ours.

It knows names only. The invariant: an argument is used, sent to the server, warned about or refused; none is
dropped in silence.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

from parrot_compat.integrations.given import without_nones
from parrot_compat.integrations.requests import REQUEST_PARAMETERS

__all__ = ["field_arguments"]

SYNONYMS = {
    "openai_api_key": "api_key",
    "openai_api_base": "base_url",
    "openai_organization": "organization",
    "request_timeout": "timeout",
    "max_completion_tokens": "max_tokens",
    "stop_sequences": "stop",
}

NO_EFFECT = {
    "batch_size": "all prompts of a batch go to the server together",
    "check_embedding_ctx_length": "texts are sent as they are, and one that is too long is an error",
    "embedding_ctx_length": "texts are sent as they are, and one that is too long is an error",
    "show_progress_bar": "there is none",
    "skip_empty": "texts are sent as they are",
    "tiktoken_enabled": "texts are sent as they are",
    "disabled_params": "every parameter that is set is sent",
    "include_response_headers": "response metadata has no headers",
    "tiktoken_model_name": "tokens are counted by the server, with the model's own tokenizer",
    "use_previous_response_id": "every request carries its whole conversation",
    "use_responses_api": "answers come from /chat/completions, in the same form",
}

REFUSED = {
    "http_async_client": "connections are made here; HTTPS_PROXY and SSL_CERT_FILE are obeyed",
    "http_client": "connections are made here; HTTPS_PROXY and SSL_CERT_FILE are obeyed",
    "openai_proxy": "set HTTPS_PROXY instead",
}


def field_arguments(given: Mapping[str, Any], fields: Mapping[str, Any], owner: str) -> dict[str, Any]:
    """Arguments under the names of `fields`, which have their annotations. What is none of them goes into
    `model_kwargs`, and so into the request; `None` for a field that has no such value is no argument."""
    arguments: dict[str, Any] = {}
    request = dict(given.get("model_kwargs") or {})
    synonyms = SYNONYMS | ({"model": "model_name"} if "model_name" in fields else {})
    meant = {name: fields[field] for name in given if (field := synonyms.get(name, name)) in fields}
    said: dict[str, str] = {}
    for name, value in without_nones(given, meant).items():
        field = synonyms.get(name, name)
        if field in fields:
            earlier = arguments.get(field)
            if earlier is not None and value is not None and earlier != value:
                raise ValueError(f"{name!r} and {said[field]!r} are one argument: give one of them")
            arguments[field], said[field] = (earlier, said[field]) if value is None and field in said else (value, name)
        elif value is None:
            continue
        elif name in REFUSED:
            raise ValueError(f"{owner} does not take {name!r}: {REFUSED[name]}")
        elif name in NO_EFFECT:
            warnings.warn(f"{name!r} has no effect on {owner}: {NO_EFFECT[name]}", stacklevel=2)
        else:
            if name not in REQUEST_PARAMETERS:
                warnings.warn(
                    f"{name!r} is not an argument of {owner} and is sent with every request; "
                    f"put it into model_kwargs if that is meant",
                    stacklevel=2,
                )
            if name in request:
                raise ValueError(f"{name!r} is given twice: as an argument and in model_kwargs")
            request[name] = value
    if request:
        arguments["model_kwargs"] = request
    return arguments
