"""What is printed and logged of URLs and of errors has no password and no key in it."""

from __future__ import annotations

import ssl

import httpx
import pytest

from parrot_compat.core.shown import is_of_the_network, shown_error, shown_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1"),
        ("https://operator:hunter2@host/v1", "https://host/v1"),
        ("https://hunter2@host/v1", "https://host/v1"),
        ("https://operator:hunter2@[::1]:8000/v1?a=b", "https://[::1]:8000/v1?a=b"),
        ("https://operator:hunt/er2@host/v1", "https://host/v1"),
        ("https://operator:hunter2@home@host/v1", "https://host/v1"),
        ("operator:hunter2@host/v1", "host/v1"),
        ("HTTP://operator:hun\nter2@host", "HTTP://host"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_name_and_password(url: str, shown: str) -> None:
    assert shown_url(url) == shown


@pytest.mark.parametrize(
    "error",
    [httpx.ConnectError("refused"), httpx.ReadTimeout("refused"), ssl.SSLError("refused"), TimeoutError("refused")],
)
def test_what_a_network_says_is_shown(error: Exception) -> None:
    assert is_of_the_network(error) and "refused" in shown_error(error)


@pytest.mark.parametrize("kind", [httpx.LocalProtocolError, httpx.RemoteProtocolError, ValueError])
def test_of_all_that_may_repeat_what_was_sent_the_class_is_shown(kind: type[Exception]) -> None:
    assert shown_error(kind("Illegal header value b'Bearer secret'")) == kind.__name__
