"""What people may read of texts that may have a secret in them: URLs, and errors of an HTTP library.

It knows nothing of who is at the other end. What is printed or logged is read by more people than may know a password
or a key.

The invariant: what is shown of a text has none, also where it is no URL: a password is often what makes it none.
"""

from __future__ import annotations

import re

__all__ = ["is_of_the_network", "shown_error", "shown_url"]

_OF_THE_NETWORK = frozenset({"NetworkError", "TimeoutException", "OSError", "APIConnectionError"})
"""Of whichever HTTP library the SDK has, of Python (TLS too), and the SDK's own, which say nothing more."""


def shown_url(url: str) -> str:
    """`http://name:password@host/v1` is shown as `http://host/v1`. Where the password has a `/` nobody can say where it
    ends but by the last `@`; better a path with one is cut."""
    return re.sub(r"\A([a-z][a-z0-9+.-]*://)?.*@", r"\1", url, flags=re.IGNORECASE | re.DOTALL)


def is_of_the_network(error: BaseException) -> bool:
    """Does it say that a connection failed, or took too long? `False`: nobody knows whether there was one."""
    return not _OF_THE_NETWORK.isdisjoint(kind.__name__ for kind in type(error).__mro__)


def shown_error(error: BaseException) -> str:
    """Of errors of the network their text. Others repeat what was to be sent, as `Illegal header value b'Bearer …'`
    does: of them the class has to be enough."""
    return str(error) if is_of_the_network(error) else type(error).__name__
