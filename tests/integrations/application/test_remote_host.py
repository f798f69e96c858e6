"""What only the remote implementation has: the wire, connections, errors in envelopes."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from parrot_compat.core import errors
from parrot_compat.integrations import chunks as chunking
from parrot_compat.integrations.application import remote_host
from parrot_compat.integrations.application.host import NotAParrotServer, ServerUnreachable
from parrot_compat.integrations.application.output import Output
from parrot_compat.integrations.application.remote_errors import error_of
from parrot_compat.integrations.application.remote_host import connect
from parrot_compat.integrations.application.request import Bound, Request

TEMPLATE = "{{input:word}} {{output:echo}}"


@dataclass
class Recorder:
    """Speaks HTTP, keeps what it was sent, answers what it is told: `None` breaks the connection."""

    url: str = ""
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    answers: dict[tuple[str, str], list[tuple[int, Any] | None]] = field(default_factory=dict)

    def on(self, method: str, path: str, *answers: tuple[int, Any] | None) -> None:
        """Answers to come, in order; the last one stays."""
        self.answers[method, path] = list(answers)


@contextmanager
def recorder() -> Iterator[Recorder]:
    recorded = Recorder()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            path = self.path.removeprefix("/v1/parrot/sessions")
            recorded.requests.append((self.command, path, json.loads(body) if body else None))
            left = recorded.answers[self.command, path.partition("?")[0]]
            answer = left.pop(0) if len(left) > 1 else left[0]
            if answer is None:
                self.close_connection = True
                self.connection.close()
                return
            status, data = answer
            stream = isinstance(data, list)
            raw = b"".join(b"data: %s\n\n" % json.dumps(event).encode() for event in data) if stream else None
            raw = json.dumps(data).encode() if raw is None else raw
            self.send_response(status)
            self.send_header("content-type", "text/event-stream" if stream else "application/json")
            self.send_header("content-length", str(len(raw)))
            self.send_header("retry-after-ms", "2500")
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PUT = do_DELETE = answer

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.handle_error = lambda request, address: None  # type: ignore[method-assign]
    recorded.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    recorded.on("POST", "", (200, {"object": "parrot.session", "id": "s/1"}))
    recorded.on("DELETE", "/s%2F1", (200, {}))
    thread = threading.Thread(target=server.serve_forever, args=(0.005,), daemon=True)
    thread.start()
    try:
        yield recorded
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def there() -> Iterator[Recorder]:
    with recorder() as made:
        yield made


def ready(text: str) -> tuple[int, Any]:
    return 200, {"id": "v1", "name": "v1", "state": "ready", "text": text}


def test_an_app_sends_what_the_wire_says_and_no_more(there: Recorder) -> None:
    there.on("POST", "/s%2F1/variables", (200, {"object": "parrot.variable", "id": "v0"}))
    there.on("POST", "/s%2F1/calls", (200, {"variables": [{"echo": "v1"}]}), (200, {"variables": [{"echo": "v2"}]}))
    there.on("GET", "/s%2F1/variables/v2", (200, {"id": "v2", "state": "pending"}), ready("done"))
    with connect(there.url) as application, application.open_session("app", ttl_s=5) as session:
        given = session.variable("text", name="given")
        first = session.call(
            TEMPLATE, {"word": given}, function="f", sampling=Output(max_tokens=9), outputs={"echo": Output(top_k=2)}
        )
        second = session.call(
            TEMPLATE, {"word": first["echo"].transform("strip")}, form="text", model="m", objective="background"
        )
        for _ in range(3):
            assert second["echo"].get(objective="throughput") == "done"
    ids = [body.pop("id") for _, path, body in there.requests if path.endswith("/calls")]
    assert len(set(ids)) == 2
    assert there.requests == [
        ("POST", "", {"name": "app", "ttl_s": 5}),
        ("POST", "/s%2F1/variables", {"name": "given", "text": "text"}),
        (
            "POST",
            "/s%2F1/calls",
            {
                "template": TEMPLATE,
                "form": "chat",
                "function": "f",
                "outputs": {"echo": {"max_tokens": 9, "top_k": 2}},
                "bindings": [{"word": {"variable": "v0"}}],
            },
        ),
        (
            "POST",
            "/s%2F1/calls",
            {
                "template": TEMPLATE,
                "form": "text",
                "model": "m",
                "objective": "background",
                "outputs": {"echo": {}},
                "bindings": [{"word": {"variable": "v1", "transform": ["strip"]}}],
            },
        ),
        ("GET", "/s%2F1/variables/v2?wait=30.0&objective=throughput", None),
        ("GET", "/s%2F1/variables/v2?wait=30.0&objective=throughput", None),
        ("DELETE", "/s%2F1", None),
    ]


def test_a_server_is_not_asked_to_be_silent_for_longer_than_it_may_be(there: Recorder) -> None:
    there.on("POST", "/s%2F1/variables", (200, {"object": "parrot.variable", "id": "v1"}))
    there.on("GET", "/s%2F1/variables/v1", ready("done"))
    with connect(there.url, timeout_s=4) as application, application.open_session() as session:
        assert session.variable(name="late").get() == "done"
    assert ("GET", "/s%2F1/variables/v1?wait=2.0", None) in there.requests


def test_a_lost_answer_is_asked_for_again_only_where_that_changes_nothing(
    there: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_host, "_PAUSES_S", (0.0, 0.0))
    there.on("POST", "/s%2F1/calls", None, (200, {"variables": [{"echo": "v1"}]}))
    there.on("GET", "/s%2F1/variables/v1", None, None, ready("done"))
    there.on("POST", "/s%2F1/variables", None)
    with connect(there.url) as application, application.open_session() as session:
        assert session.call(TEMPLATE, {"word": "x"})["echo"].get() == "done"
        with pytest.raises(ServerUnreachable, match="no answer from"):
            session.variable("once").get()
    sent = [(method, path, body and body.get("id")) for method, path, body in there.requests if "s%2F1/" in path]
    assert [path.partition("?")[0].rpartition("/")[2] for _, path, _ in sent] == [
        *["calls"] * 2,
        *["v1"] * 3,
        "variables",
    ]
    assert sent[0] == sent[1]


def test_a_map_of_any_length_is_as_many_requests_as_the_server_takes_it_in(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fastapi")
    from parrot_compat.server.limits import RequestLimits
    from tests.integrations.worlds import world

    monkeypatch.setattr(chunking, "MOST_CALLS", 8)
    words = [f"word {number}" for number in range(20)]
    with world("remote", limits=RequestLimits(calls=8)) as there, there.application.open_session() as session:
        made = session.call_each(Request(template=TEMPLATE), [{"word": word} for word in words])
        assert [one["echo"].get() for one in made] == [f"<{word}>" for word in words]
        two = Request(template="{{input:word}} {{output:a}} again {{output:b}}")
        made = session.call_each(two, [{"word": one["echo"]} for one in made])
        assert [one["a"].get() for one in made] == [f"<<{word}>>" for word in words]


def test_of_a_map_in_several_requests_nothing_is_accepted_where_one_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("fastapi")
    from tests.integrations.worlds import world

    monkeypatch.setattr(chunking, "MOST_CALLS", 2)
    with world("remote") as there, there.application.open_session() as session:
        there.stall()
        other = session.call(TEMPLATE, {"word": "other"})["echo"]
        other.accepted.result(60)
        words = [*"abcd", Bound(variable="nothing")]
        submit = there.application.host.submit(session.id, Request(template=TEMPLATE), [{"word": x} for x in words])
        with pytest.raises(errors.UnknownVariable, match="nothing"):
            there.application.loop.run(submit)
        states = [call["state"] for call in session.describe()["calls"]]
        assert states[1:] == ["cancelled"] * 4 and states[0] not in ("cancelled", "failed")
        there.resume()
        assert other.get() == "<other>"


@pytest.mark.parametrize("lost", [0, 1], ids=["the first", "the second"])
def test_of_a_map_in_several_requests_nothing_runs_on_where_an_answer_is_lost(
    monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    pytest.importorskip("fastapi")
    from tests.integrations.worlds import world

    monkeypatch.setattr(chunking, "MOST_CALLS", 2)
    monkeypatch.setattr(remote_host, "_PAUSES_S", (0.0, 0.0))
    monkeypatch.setattr(remote_host, "_LAST_WORD_S", 60.0)
    once, sent, cancelled = remote_host.RemoteHost._once, list[str](), list[Any]()

    async def loses_answers(self: remote_host.RemoteHost, method: str, path: str, body: Any, query: Any) -> Any:
        answer = await once(self, method, path, body, query)
        if path.endswith("/calls"):
            sent.extend({body["id"]} - set(sent))
        if path.endswith("/cancel"):
            cancelled.append(body)
        if (path.endswith("/calls") and len(sent) == lost + 1) or len(cancelled) == 1:
            raise ServerUnreachable("the line broke")
        return answer

    with world("remote") as there, there.application.open_session() as session:
        there.stall()
        session.describe()
        monkeypatch.setattr(remote_host.RemoteHost, "_once", loses_answers)
        words = [{"word": word} for word in "abcdef"]
        with pytest.raises(ServerUnreachable):
            there.application.loop.run(there.application.host.submit(session.id, Request(template=TEMPLATE), words))
        assert len(sent) == lost + 1 and cancelled == [{"requests": sent}] * 2
        states = [call["state"] for call in session.describe()["calls"]]
        assert states == ["cancelled"] * 2 * (lost + 1)


def test_a_server_that_is_not_there_is_told_of_where_it_is_read() -> None:
    with connect("http://127.0.0.1:9/v1") as application, application.open_session() as session:
        said = session.call(TEMPLATE, {"word": "x"})["echo"]
        for act in (said.get, session.describe, session.cancel, lambda: list(said.stream()), session.variable("x").get):
            with pytest.raises(ServerUnreachable, match=r"http://127\.0\.0\.1:9/v1/parrot/sessions"):
                act()


@pytest.mark.parametrize(
    ("answer", "kind", "said"),
    [
        ((404, {"detail": "Not Found"}), NotAParrotServer, "404"),
        ((200, ["a stream"]), NotAParrotServer, "answered"),
        ((200, {"no": "id"}), NotAParrotServer, "id"),
        ((401, {"error": {"message": "who?", "type": "x", "param": None, "code": "invalid_api_key"}}), None, "who"),
        ((500, {"error": {"message": "oh", "type": "x", "param": None, "code": "server_error"}}), None, "oh"),
    ],
)
def test_what_is_no_parrot_server_or_refuses_is_told_in_words(
    there: Recorder, answer: tuple[int, Any], kind: type[Exception] | None, said: str
) -> None:
    there.on("POST", "", answer)
    with connect(there.url) as application, application.open_session() as session:
        with pytest.raises(kind or errors.ParrotError, match=said) as error:
            session.variable("x").get()
        expected = kind or (errors.CallerError if answer[0] == 401 else errors.ParrotError)
        assert type(error.value) is expected


def test_a_stream_that_breaks_or_fails_says_so(there: Recorder) -> None:
    chunk = {"type": "parrot:chunk", "sequence_number": 0, "text": "a"}
    failed = {"error": {"message": "engine 'e' is gone", "type": "server_error", "param": None, "code": "engine_lost"}}
    there.on("POST", "/s%2F1/variables", (200, {"id": "v1"}))
    there.on("GET", "/s%2F1/variables/v1/stream", (200, [chunk]), (200, [chunk, {"type": "parrot:failed", **failed}]))
    with connect(there.url) as application, application.open_session() as session:
        variable = session.variable()
        for kind in (ServerUnreachable, errors.EngineLost):
            pieces = variable.stream()
            assert next(pieces) == "a"
            with pytest.raises(kind):
                next(pieces)


def test_a_limit_says_how_long_to_wait(there: Recorder) -> None:
    full = {"error": {"message": "later", "type": "server_error", "param": None, "code": "queue_full"}}
    there.on("POST", "/s%2F1/calls", (503, full))
    with connect(there.url) as application, application.open_session() as session:
        with pytest.raises(errors.QueueFull, match="later") as error:
            session.call(TEMPLATE, {"word": "x"})["echo"].get()
        assert error.value.retry_after_s == 2.5
    assert [path for _, path, _ in there.requests].count("/s%2F1/calls") == 1


def _examples() -> list[errors.ParrotError]:
    kinds = [getattr(errors, name) for name in errors.__all__]
    return [
        errors.UpstreamFailed("v-1", errors.EngineLost("it died"))
        if kind is errors.UpstreamFailed
        else kind("what happened", "field")
        if issubclass(kind, errors.CallerError)
        else kind("what happened")
        for kind in kinds
    ]


@pytest.mark.parametrize("error", _examples(), ids=lambda error: type(error).__name__)
def test_every_error_of_the_tree_comes_back_as_itself(error: errors.ParrotError) -> None:
    pytest.importorskip("fastapi")
    from parrot_compat.server.errors import problem_of

    problem = problem_of(error)
    back = error_of(problem.envelope()["error"], status=problem.status, headers=problem.headers)
    same = {errors.LimitError: errors.TooManyCalls}  # an abstract one; its answer is the commonest kind's
    assert type(back) is same.get(type(error), type(error))
    assert back.message.endswith(error.message)
    assert getattr(back, "param", None) == getattr(error, "param", None)
    assert getattr(back, "retry_after_s", None) == getattr(error, "retry_after_s", None)
    if isinstance(back, errors.UpstreamFailed):
        assert back.variable == "v-1" and back.cause.message == "it died"


def test_where_to_and_as_whom_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARROT_BASE_URL", "http://127.0.0.1:9/elsewhere/v1")
    with connect() as application, pytest.raises(ServerUnreachable, match="/elsewhere/v1/parrot/sessions"):
        application.open_session().variable("x").get()
