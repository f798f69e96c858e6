"""Which arguments of a request are which, for every framework: those of sampling that models are given, others that
a server is sent, and those that are the SDK's and never reach a server's body.

It knows names alone. The invariant: a name stands in one list at most.
"""

from __future__ import annotations

__all__ = ["REQUEST_PARAMETERS", "SAMPLING", "TRANSPORT"]

SAMPLING = ("temperature", "max_tokens", "top_p", "top_k", "seed", "stop")
REQUEST_PARAMETERS = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "logprobs",
        "n",
        "parallel_tool_calls",
        "presence_penalty",
        "reasoning_effort",
        "response_format",
        "service_tier",
        "store",
        "top_logprobs",
        "verbosity",
    }
)
"""Fields of the frameworks' OpenAI classes that are parameters of a request; ours need no fields for them."""
TRANSPORT = ("timeout", "extra_headers", "extra_query")
