"""Which arguments of a request are which, for every framework: those of sampling that models are given, and those that
are the SDK's and never reach a server's body.

It knows names alone. The invariant: a name stands in one list at most.
"""

from __future__ import annotations

__all__ = ["SAMPLING", "TRANSPORT"]

SAMPLING = ("temperature", "max_tokens", "top_p", "top_k", "seed", "stop")
TRANSPORT = ("timeout", "extra_headers", "extra_query")
