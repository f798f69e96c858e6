from __future__ import annotations

import asyncio
import contextvars
import pickle
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from parrot_compat.core.errors import BadTemplate, CallerError, Cancelled
from parrot_compat.integrations.application import application as applications
from parrot_compat.integrations.application.application import current_application
from parrot_compat.integrations.application.functions import SemanticFunction, semantic_function
from parrot_compat.integrations.application.output import Output
from parrot_compat.integrations.application.outputs import Outputs
from parrot_compat.integrations.application.session import Session
from parrot_compat.integrations.application.variable import Variable

pytest.importorskip("fastapi")

from tests.integrations.forks import in_a_child
from tests.integrations.worlds import World, world


class Code(Outputs):
    code: Variable


@semantic_function(max_tokens=64)
def write_code(task: str | Variable, language: str = "Python") -> Code:
    """Write {{input:language}}

    for {{input:task}}: {{output:code}}"""


@semantic_function
def write_test(code: str | Variable) -> Outputs:
    """Test {{input:code}} {{output:test}} Why? {{output:why}}"""


@pytest.fixture(params=["remote", "embedded"])
def there(request: pytest.FixtureRequest) -> Iterator[World]:
    with world(request.param) as made:
        yield made


@pytest.fixture(scope="module")
def here() -> Iterator[World]:
    with world("embedded") as made:
        yield made


# ---- calling -------------------------------------------------------------------------------------------


def test_the_docstring_is_the_template_and_the_parameters_are_its_inputs(there: World) -> None:
    assert write_code("a sort").code.get() == "<Write Python\n\nfor a sort:>"
    assert write_code(task="a sort", language="C").code.get() == "<Write C\n\nfor a sort:>"


def test_a_call_that_reads_another_waits_for_nothing(there: World) -> None:
    there.stall()
    made = write_code("x", "C")
    tested = write_test(made.code.transform("strip"))
    described = {call["function"]: call for call in _submitted(tested.why).describe()["calls"]}
    there.resume()
    assert tested.test.get() == "<Test <Write C\n\nfor x:>>"
    assert tested.why.get() == "<Why?>"
    assert described["write_test"]["state"] == "waiting"
    assert described["write_test"]["inputs"][0] == described["write_code"]["output"]


def _submitted(variable: Variable) -> Session:
    variable.accepted.result(60)
    return variable.session


def test_several_outputs_are_fields_in_order_and_by_name(here: World) -> None:
    tested = write_test("f")
    test, why = tested
    assert (test, why) == (tested.test, tested.why) and len(tested) == 2
    assert tested.get() == {"test": "<Test f>", "why": "<Why?>"}
    with pytest.raises(AttributeError, match="there is no output 'code'; the outputs are test, why"):
        _ = tested.code


def test_everything_of_it_can_be_awaited(here: World) -> None:
    async def run() -> list[object]:
        tested = write_test(write_code("x").code)
        return [await tested.why, await tested.aget(), [piece async for piece in tested.why.astream()]]

    why, both, pieces = asyncio.run(run())
    assert why == "<Why?>" and both["why"] == why and "".join(pieces) == why  # type: ignore[index, arg-type]


def test_the_return_type_names_the_fields(here: World) -> None:
    made = write_code("x")
    assert type(made) is Code
    assert repr(made) == "Code(<variable 'code'>)"
    made.code.get(objective="latency")
    assert "for x:>" in repr(made)


def test_numbers_are_inputs_as_they_are_written(here: World) -> None:
    assert write_code(3, language=2.5).code.get() == "<Write 2.5\n\nfor 3:>"  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [None, ["a"], b"x", {"a": 1}])
def test_what_is_neither_text_nor_number_is_refused(here: World, value: object) -> None:
    with pytest.raises(BadTemplate, match="'task' of write_code"):
        write_code(value)  # type: ignore[arg-type]


def test_outputs_in_place_of_one_of_them_are_refused_with_a_hint(here: World) -> None:
    with pytest.raises(BadTemplate, match="pass one of its variables"):
        write_test(write_code("x"))  # type: ignore[arg-type]


@pytest.mark.parametrize("is_read", [False, True])
def test_a_variable_in_a_format_string_is_refused_and_can_be_shown(here: World, is_read: bool) -> None:
    made = write_code("x")
    if is_read:
        made.get()
    for name, no_text in (("variable 'code'", made.code), ("Code", made)):
        for into in ("about {}", "about {:>9}"):
            with pytest.raises(TypeError, match=f"^{name}.* is no text"):
                into.format(no_text)
        assert f"{no_text!r}" == f"{no_text!s}" == "%s" % no_text == repr(no_text)  # noqa: UP031 (as logging does)


def test_arguments_that_do_not_fit_are_a_type_error_as_with_any_function(here: World) -> None:
    with pytest.raises(TypeError, match="task"):
        write_code()  # type: ignore[call-arg]


def test_sampling_is_of_all_outputs_or_of_one(here: World) -> None:
    @semantic_function(max_tokens=4, outputs={"b": Output(max_tokens=2), "c": Output(stop=["s"])})
    def say(word: str) -> Outputs:
        """{{input:word}} {{output:a}} and {{output:b}} so {{output:c}}"""

    assert say("abcdefgh").get() == {"a": "<abc", "b": "<a", "c": "<"}


# ---- many at once ----------------------------------------------------------------------------------------


def test_map_goes_over_lists_side_by_side_as_one_group(there: World) -> None:
    there.stall()
    made = write_code.map(["a", "b", "c"], language="C")
    calls = _submitted(made[0].code).describe()["calls"]
    there.resume()
    assert [one.code.get() for one in made] == [f"<Write C\n\nfor {task}:>" for task in "abc"]
    assert len({call["group"] for call in calls}) == 1 and calls[0]["group"]
    assert [type(one) for one in made] == [Code] * 3


def test_map_goes_over_variables_of_other_calls(here: World) -> None:
    tests = write_test.map([made.code for made in write_code.map(task=["a", "b"], language=["C", "D"])])
    assert [one.test.get() for one in tests] == ["<Test <Write C\n\nfor a:>>", "<Test <Write D\n\nfor b:>>"]
    assert write_test.map([]) == []


def test_map_belongs_to_the_session_of_what_it_reads(here: World) -> None:
    session = here.application.open_session()
    task = session.variable("a sort")
    made = write_code.map([task, task], language="C")
    assert [one.code.session for one in made] == [session] * 2
    assert made[1].code.get() == "<Write C\n\nfor a sort:>"


def test_map_refuses_lists_that_do_not_fit(here: World) -> None:
    with pytest.raises(BadTemplate, match="task has 2, language has 1"):
        write_code.map(["a", "b"], language=["C"])
    with pytest.raises(BadTemplate, match="there is none"):
        write_test.map("abc")


# ---- where calls belong ------------------------------------------------------------------------------------


def test_calls_belong_to_the_innermost_session(here: World) -> None:
    with here.application.open_session("outer") as outer:
        with here.application.open_session("inner") as inner:
            assert write_code("x").code.session is inner
        made = write_code("x")
        assert made.code.session is outer
        assert write_code.within(here.application.session)("x").code.session is here.application.session
        with pytest.raises(BadTemplate, match="another session"):
            write_code(made.code, language=inner_variable(here))
    assert write_code("x").code.session is not outer


def inner_variable(here: World) -> Variable:
    return here.application.open_session().variable("C")


def test_calls_belong_to_the_session_of_what_they_read(here: World) -> None:
    session = here.application.open_session()
    assert write_test(session.variable("x")).test.session is session
    with here.application.open_session():
        assert write_test(session.variable("x")).test.session is session


def test_a_function_within_a_session_takes_no_variable_of_another_into_it(here: World) -> None:
    elsewhere = here.application.open_session().variable("x")
    with here.application.open_session() as mine:
        with pytest.raises(BadTemplate, match="of another session"):
            write_test.within(mine)(elsewhere)
        with pytest.raises(BadTemplate, match="of another session"):
            write_test.within(mine).map(["text", elsewhere])
        assert write_test.within(mine)(mine.variable("y")).test.session is mine


def test_a_variable_is_a_text_or_a_number_wherever_the_app_runs(here: World) -> None:
    session = here.application.open_session()
    assert session.variable(0).get() == "0"
    empty = session.variable()
    with pytest.raises(BadTemplate, match="NoneType"):
        empty.set(None)  # type: ignore[arg-type]
    with pytest.raises(BadTemplate, match="list"):
        session.variable(["x"])  # type: ignore[arg-type]
    empty.set(7)
    assert empty.get() == "7" and session.describe()["variables"]


def test_calls_in_threads_and_tasks_of_a_block_belong_to_it(here: World) -> None:
    async def run() -> bool:
        async with here.application.open_session() as session:
            threaded = await asyncio.to_thread(write_code, "x")
            tasked = await asyncio.create_task(one())
            return threaded.code.session is session and tasked.code.session is session

    async def one() -> Code:
        return write_code("x")

    assert asyncio.run(run())


def test_the_environment_names_the_default_application(monkeypatch: pytest.MonkeyPatch) -> None:
    def outside_of_blocks() -> None:
        assert write_code("x").code.get() == "<Write Python\n\nfor x:>"
        default = current_application()
        assert current_application() is default is not there.application
        assert there.application.as_default() is current_application()
        there.application.close()
        assert current_application() not in (default, there.application)
        default.close()
        with pytest.raises(Cancelled, match="closed"):
            default.open_session()

    with world("remote") as there:
        monkeypatch.setattr(applications, "_default", None)
        monkeypatch.setenv("PARROT_BASE_URL", there.url)
        contextvars.Context().run(outside_of_blocks)


def test_the_default_application_that_nobody_chose_is_made_anew_in_a_forked_child(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def asked() -> str:
        return write_code("x").code.get()

    with world("remote") as there:
        monkeypatch.setattr(applications, "_default", None)
        monkeypatch.setenv("PARROT_BASE_URL", there.url)
        answer = contextvars.Context().run(asked)
        assert contextvars.Context().run(in_a_child, asked) == answer == "<Write Python\n\nfor x:>"
        there.application.as_default()
        assert "made in another process" in contextvars.Context().run(in_a_child, asked)


def test_a_thread_that_is_in_no_block_is_told_so_and_not_sent_elsewhere(
    monkeypatch: pytest.MonkeyPatch, there: World
) -> None:
    monkeypatch.setattr(applications, "_default", None)
    monkeypatch.setattr(applications, "_is_chosen", False)
    monkeypatch.delenv("PARROT_BASE_URL", raising=False)

    def asked() -> str:
        return write_code("x").code.get()

    with ThreadPoolExecutor(1) as pool:
        with pytest.raises(CallerError, match=r"as_default\(\)"):
            pool.submit(asked).result()
        with world("embedded") as another:
            another.application.as_default()
        with pytest.raises(CallerError, match=r"as_default\(\)"):  # the default of before is closed
            pool.submit(asked).result()
        assert pool.submit(contextvars.copy_context().run, asked).result() == "<Write Python\n\nfor x:>"
        there.application.as_default()
        assert pool.submit(asked).result() == "<Write Python\n\nfor x:>"


def test_an_application_in_a_block_is_the_current_one(here: World) -> None:
    with world("embedded") as inner:
        assert current_application() is inner.application
    assert current_application() is here.application


# ---- definitions -------------------------------------------------------------------------------------------


def _no_docstring(x: str) -> Outputs: ...


def _unused(x: str, y: str) -> Outputs:
    """{{input:x}} {{output:z}}"""


def _missing() -> Outputs:
    """{{input:x}} {{output:z}}"""


def _many(*x: str) -> Outputs:
    """{{input:x}} {{output:z}}"""


def _taken(x: str) -> Outputs:
    """{{input:x}} {{output:get}}"""


def _other_fields(x: str) -> Code:
    """{{input:x}} {{output:z}}"""


def _text(x: str) -> str:  # type: ignore[return]
    """{{input:x}} {{output:z}}"""


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (_no_docstring, "no docstring"),
        (_unused, "does not use parameter y"),
        (_missing, "no parameter for input x"),
        (_many, "'x' of _many is many"),
        (_taken, "'get'"),
        (_other_fields, "fields code, the template has the outputs z"),
        (_text, "returns Outputs"),
    ],
)
def test_a_function_that_does_not_agree_with_its_template_is_refused(function: object, said: str) -> None:
    with pytest.raises(BadTemplate, match=said):
        semantic_function(function)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("max_tokens", 0),
        ("max_tokens", True),
        ("max_tokens", 1.5),
        ("temperature", -1),
        ("temperature", float("nan")),
        ("temperature", "hot"),
        ("top_p", 2),
        ("top_k", -2),
        ("min_p", 1.5),
        ("seed", 2**63),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", [1]),
    ],
)
def test_sampling_that_cannot_be_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(CallerError, match=field) as error:
        semantic_function(**{field: value})(_unused)  # type: ignore[call-overload]
    assert error.value.param == field


def test_a_misspelt_option_is_refused() -> None:
    with pytest.raises(TypeError, match="max_token"):
        semantic_function(max_token=5)(_unused)  # type: ignore[call-overload]


def test_a_template_may_be_given_in_place_of_a_docstring(here: World) -> None:
    @semantic_function(template="Say {{input:word}} {{output:said}}", form="text")
    def say(word: str) -> Outputs:
        """Documentation."""

    assert say("it").said.get() == "<Say it>" and say.__doc__ == "Documentation."


def test_a_function_is_pickled_by_name_and_says_what_it_is(here: World) -> None:
    assert pickle.loads(pickle.dumps(write_code)) is write_code
    with pytest.raises(TypeError, match="write_code is within a session"):
        pickle.dumps(write_code.within(here.application.session))
    assert repr(write_test) == "<semantic function write_test(code: 'str | Variable') -> 'Outputs'>"
    assert write_test.__name__ == "write_test" and isinstance(write_test, SemanticFunction)


def test_without_langchain_it_is_a_semantic_function_all_the_same() -> None:
    program = """
import sys
for absent in ("langchain_core", "fastapi", "torch"):
    sys.modules[absent] = None
import parrot_compat
@parrot_compat.semantic_function
def say(word: str) -> parrot_compat.Outputs:
    '''{{input:word}} {{output:said}}'''
assert type(say).__name__ == "SemanticFunction", type(say)
assert not hasattr(say, "invoke")
application = parrot_compat.connect("http://127.0.0.1:9/v1")
try:
    say.within(application.open_session())("x").said.get()
except parrot_compat.integrations.application.host.ServerUnreachable as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "no answer from http://127.0.0.1:9/v1/parrot/sessions" in ran.stdout


def test_where_langchain_is_too_old_it_is_a_semantic_function_and_says_why_once() -> None:
    program = """
import sys
sys.modules["parrot_compat.integrations.langchain.function_runnable"] = None  # as if it lacked a name
import parrot_compat
def say(word):
    '''{{input:word}} {{output:said}}'''
print(*{type(parrot_compat.semantic_function(say)).__name__ for _ in range(2)})
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "SemanticFunction\n"), ran.stderr
    assert ran.stderr.count("langchain-core 1.7 or newer") == 1


def test_an_application_is_closed_with_the_program_that_did_not_close_it() -> None:
    program = """
import parrot_compat
from contextlib import asynccontextmanager
from parrot_compat.core.fleet import Fleet
from parrot_compat.core.manager import Manager
from parrot_compat.integrations.application.application import Application
from parrot_compat.integrations.application.embedded import EmbeddedHost
@asynccontextmanager
async def start():
    async with Manager(Fleet()) as manager:
        yield manager
    print("ended", flush=True)
application = Application(EmbeddedHost(start)).start()
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "ended\n", "")


def test_types_that_only_type_checkers_know_are_taken_by_their_names(here: World) -> None:
    """`Variable` imported under TYPE_CHECKING, as linters ask for it."""
    module: dict[str, Any] = {"__name__": "an_app"}
    source = """
from __future__ import annotations
from parrot_compat import Outputs, semantic_function
class Joke(Outputs):
    joke: Variable
def tell(topic: str | Variable, style: "in a style" = "dry") -> Joke:
    'A {{input:style}} joke about {{input:topic}}: {{output:joke}}'
def wrong(topic: str | Variable) -> Joke:
    'A joke about {{input:topic}}: {{output:text}}'
"""
    exec(compile(source, "an_app.py", "exec", dont_inherit=True), module)
    tell = semantic_function(module["tell"])
    assert tell.made is module["Joke"] and tell("parrots").joke.get() == "<A dry joke about parrots:>"
    with pytest.raises(BadTemplate, match="Joke has the fields joke"):
        semantic_function(module["wrong"])
