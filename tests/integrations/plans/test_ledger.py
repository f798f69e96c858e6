from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from parrot_compat.integrations.plans.ledger import CallAhead, Ending, Ledger, canonical, reference


def body(*parts: str | dict[str, Any], **params: Any) -> dict[str, Any]:
    content: Any = parts[0] if len(parts) == 1 and isinstance(parts[0], str) else None
    content = content or [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]
    return {"messages": [{"role": "user", "content": content}], **params}


def completion(text: str) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text}}]}


def two() -> Ledger:
    first = CallAhead(id="a", request=body("hello"))
    second = CallAhead(id="b", request=body("say ", reference("a"), "!"), reads=("a",))
    return Ledger([first, second])


def test_a_request_is_the_planned_call_that_it_equals_whatever_the_order_of_its_fields() -> None:
    ledger = Ledger([CallAhead(id="a", request={"temperature": 0, **body("hello")})])
    assert ledger.take(canonical({**body("hello"), "temperature": 1})) is None
    entry = ledger.take(canonical({**body("hello"), "temperature": 0}))
    assert entry is not None and entry.call.id == "a"


def test_a_planned_call_is_given_out_once() -> None:
    ledger = two()
    assert ledger.take(canonical(body("hello"))) is not None
    assert ledger.take(canonical(body("hello"))) is None
    ledger.check()


def test_equal_calls_are_given_out_in_plan_order() -> None:
    ledger = Ledger([CallAhead(id=name, request=body("vote")) for name in "abc"])
    taken = [ledger.take(canonical(body("vote"))) for _ in range(3)]
    assert [entry.call.id for entry in taken if entry is not None] == ["a", "b", "c"]


def test_a_call_can_be_matched_once_the_text_that_it_reads_is_here() -> None:
    ledger = two()
    filled = canonical(body("say hi!"))
    assert ledger.take(filled) is None
    ledger.push("a", body("hello"), completion("hi"))
    entry = ledger.take(filled)
    assert entry is not None and not entry.outcome.done()
    ledger.push("b", body("say hi!"), completion("done"))
    assert entry.outcome.result().completion == completion("done")


def test_a_text_that_a_claim_brought_is_as_good() -> None:
    ledger = two()
    ledger.learn("a", "hi")
    assert ledger.take(canonical(body("say hi!"))) is not None


def test_a_push_that_ran_with_another_request_fails_its_call_and_teaches_nothing() -> None:
    ledger = two()
    entry = ledger.take(canonical(body("hello")))
    assert entry is not None
    ledger.push("a", body("hello", temperature=1), completion("hi"))
    assert entry.outcome.result().ending is Ending.FAILED
    assert ledger.take(canonical(body("say hi!"))) is None


def test_what_has_not_come_is_settled_and_what_has_come_stays() -> None:
    ledger = two()
    ledger.push("a", body("hello"), completion("hi"))
    ledger.settle_rest(Ending.LOST)
    outcomes = {entry.call.id: entry.outcome.result().ending for entry in ledger.entries}
    assert outcomes == {"a": Ending.PUSHED, "b": Ending.LOST}
    ledger.push("b", body("say hi!"), completion("late"))
    assert next(e for e in ledger.entries if e.call.id == "b").outcome.result().completion is None


def test_one_waiter_that_gives_up_does_not_take_the_answer_from_the_others() -> None:
    ledger = two()
    entry = ledger.take(canonical(body("hello")))
    assert entry is not None
    assert not entry.outcome.cancel()
    ledger.push("a", body("hello"), completion("hi"))
    assert entry.outcome.result().completion == completion("hi")


def test_a_closed_plan_gives_nothing_out() -> None:
    ledger = two()
    ledger.close()
    assert ledger.take(canonical(body("hello"))) is None


def test_a_message_whose_parts_are_the_apps_own_is_left_as_it_is() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image_url", "image_url": {"url": "u"}}]
    own = {"messages": [{"role": "user", "content": parts}]}
    assert CallAhead(id="a", request=own, reads=("x",)).filled({"x": "t"}) == own


@given(st.data())
def test_whatever_order_pushes_and_calls_come_in_nothing_is_mislaid(data: st.DataObject) -> None:
    names = [str(number) for number in range(data.draw(st.integers(1, 8)))]
    calls = []
    for number, name in enumerate(names):
        reads = tuple(data.draw(st.lists(st.sampled_from(names[:number]), unique=True))) if number else ()
        calls.append(CallAhead(id=name, request=body("read ", *map(reference, reads)), reads=reads))
    ledger = Ledger(calls)
    texts = {name: data.draw(st.sampled_from(["x", "y", "", "xy"])) for name in names}
    taken: list[str] = []
    for name in data.draw(st.permutations([*names, *names])):
        call = calls[names.index(name)]
        if data.draw(st.booleans()):
            ledger.push(name, call.filled(texts), completion(texts[name]))
        elif (entry := ledger.take(canonical(call.filled(texts)))) is not None:
            taken.append(entry.call.id)
        ledger.check()
    assert len(taken) == len({*taken})
    for entry in ledger.entries:
        if entry.outcome.done() and entry.outcome.result().completion is not None:
            assert entry.outcome.result().completion == completion(texts[entry.call.id])


def test_a_call_may_read_another_through_a_transform() -> None:
    reader = CallAhead(id="b", request=body("say ", reference("a", "strip"), "!"), reads=("a",))
    ledger = Ledger([CallAhead(id="a", request=body("hello")), reader])
    ledger.learn("a", "  hi \n")
    entry = ledger.take(canonical(body("say hi!")))
    assert entry is not None and entry.call is reader


def test_a_call_whose_transform_does_not_apply_is_no_request_of_the_app() -> None:
    reader = CallAhead(id="b", request=body(reference("a", {"json_pointer": "/name"})), reads=("a",))
    ledger = Ledger([CallAhead(id="a", request=body("hello")), reader])
    ledger.learn("a", "not JSON")
    assert ledger.take(canonical(body("not JSON"))) is None
    ledger.push("b", body("not JSON"), completion("x"))
    outcomes = [entry.outcome.result().ending for entry in ledger.entries if entry.call is reader]
    assert outcomes == [Ending.FAILED]
