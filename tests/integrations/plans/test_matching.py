"""A request that is looked for among plans: a look that fails, or finds nothing, costs the app nothing."""

from __future__ import annotations

from parrot_compat.integrations.plans.asked import ALONE, Asked
from parrot_compat.integrations.plans.book import PlanBook, SentPlan
from parrot_compat.integrations.plans.matching import asked_softly, first_match
from parrot_compat.integrations.remote import Endpoint

ENDPOINT = Endpoint(base_url="http://127.0.0.1:1/v1", api_key="key")


def test_a_look_that_fails_is_a_request_that_is_made_as_it_is() -> None:
    book = PlanBook()

    def look() -> Asked:
        raise ZeroDivisionError

    assert asked_softly(book, look) is ALONE
    assert book.stats().direct == 1


def test_what_was_found_besides_a_match_is_kept() -> None:
    book = PlanBook()
    told = Asked(None, lambda: {"function": "f"})
    assert asked_softly(book, lambda: told) is told
    assert book.stats().direct == 1


def test_plans_that_were_not_sent_to_the_server_answer_nothing() -> None:
    plan = SentPlan(PlanBook(), "app", users=1)
    assert first_match([plan], ENDPOINT, {"messages": []}) is None
    assert first_match([], ENDPOINT, {"messages": []}) is None
