"""Keys are tenants; without keys the server is this machine's alone."""

from __future__ import annotations

import openai
import pytest

from parrot_compat.core.events import CallSubmitted, Event
from parrot_compat.server.auth import Keys
from parrot_compat.server.origins import is_loopback

from .live import Live, live, send

HELLO = {"messages": [{"role": "user", "content": "hello"}]}
PATH = "/v1/chat/completions"


async def test_a_key_opens_the_server_and_is_a_tenant_that_does_not_tell_the_key() -> None:
    events: list[Event] = []
    async with live(keys=["secret-a", "secret-b"]) as server:
        server.manager.events.subscribe(events.append)
        for key in ("secret-a", "secret-b", "secret-a"):
            async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=key) as client:
                await client.chat.completions.create(model="org/scripted", messages=HELLO["messages"])  # type: ignore[arg-type]
    a, b, again = [event.tenant for event in events if isinstance(event, CallSubmitted)]
    assert a == again != b
    assert "secret" not in a + b


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic secret-a"}])
@pytest.mark.parametrize("path", [PATH, "/tokenize", "/v1/models", "/v1/unknown"])
async def test_no_key_no_answer(headers: dict[str, str], path: str) -> None:
    async with live(keys=["secret-a"]) as server:
        reply = await send(server, "POST", path, HELLO, headers)
    assert reply.status == 401
    assert reply.error["code"] == "invalid_api_key"
    assert reply.headers["www-authenticate"] == "Bearer"
    assert reply.headers["x-request-id"]


async def test_probes_need_no_key() -> None:
    async with live(keys=["secret-a"]) as server:
        assert (await send(server, "GET", "/health")).status == 200
        assert (await send(server, "GET", "/openapi.json")).status == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:8000"},
        {"host": "127.0.0.1.evil.example"},
        {"host": ""},
        {"host": "[::1"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost.evil.example"},
        {"origin": "http://[bad"},
        {"x-forwarded-for": "203.0.113.7"},
        {"x-forwarded-for": "127.0.0.1, 203.0.113.7:4711"},
        {"x-forwarded-for": "unknown"},
        {"x-real-ip": "2001:db8::1"},
        {"x-real-ip": "unix:", "x-forwarded-for": "203.0.113.7, unix:"},
        {"forwarded": "for=unknown"},
        {"forwarded": 'for="_hidden"'},
        {"forwarded": "for=;proto=http"},
        {"forwarded": 'proto=https;for="[2001:db8::1]:4711"'},
        {"forwarded": "for=127.0.0.1, FOR=203.0.113.7;by=127.0.0.1"},
        {"forwarded": "by=203.0.113.43;proto=https;host=public.example"},
        {"forwarded": "for=127.0.0.1, proto=https"},
    ],
)
async def test_a_page_of_another_site_cannot_use_a_keyless_server(server: Live, headers: dict[str, str]) -> None:
    reply = await send(server, "POST", PATH, HELLO, headers)
    assert reply.status == 403
    assert reply.error["code"] == "not_local"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "localhost:1"},
        {"host": "[::1]:1"},
        {"origin": "http://localhost:3000"},
        {"x-forwarded-for": "::ffff:127.0.0.1, ::1, 127.0.0.1:4711"},
        {"x-forwarded-for": ""},
        {"x-real-ip": "unix:", "x-forwarded-for": "unix:"},
        {"forwarded": 'for="unix:"'},
        {"forwarded": 'for="[::1]:4711";host=localhost, proto=http;for=127.0.0.1'},
    ],
)
async def test_this_machine_can_use_a_keyless_server(server: Live, headers: dict[str, str]) -> None:
    assert (await send(server, "POST", PATH, HELLO, headers)).status == 200


async def test_with_keys_it_answers_whoever_has_one_through_any_proxy() -> None:
    headers = {"host": "public.example", "x-forwarded-for": "203.0.113.7", "authorization": "Bearer secret-a"}
    async with live(keys=["secret-a"]) as server:
        assert (await send(server, "POST", PATH, HELLO, headers)).status == 200


def test_keys_are_not_printed_and_never_empty() -> None:
    assert "secret" not in repr(Keys(["secret"]))
    assert not Keys() and Keys(["secret"])
    assert Keys(["secret"]).tenant("secre") is None
    with pytest.raises(ValueError, match="empty"):
        Keys([" "])


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("::ffff:127.0.0.1", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("a.b", False),
    ],
)
def test_only_this_machine_is_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) is local
