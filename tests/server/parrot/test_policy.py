"""What a server tells its clients where its policy leaves plans or pushes out."""

from __future__ import annotations

from parrot_compat.core.policy import Policy
from tests.server.live import live, send

from .graphs import GRAPHS, chain, claim, echo, pushed, text_of


async def test_a_server_without_plans_is_to_clients_as_one_that_never_had_them() -> None:
    async with live(policy=Policy(plans=False)) as server:
        reply = await send(server, "POST", GRAPHS, chain())
        assert (reply.status, reply.error["code"]) == (404, "unknown_url")
        told = (await send(server, "GET", "/v1/parrot")).json()
        assert told["levels"] == ["annotate", "reference"]
        described = (await send(server, "GET", "/openapi.json")).json()
        assert "/v1/parrot/sessions" in described["paths"] and GRAPHS not in described["paths"]
        assert (await send(server, "PUT", "/health")).status == 405


async def test_without_pushes_a_plan_runs_and_its_answers_are_claimed() -> None:
    async with live(echo, policy=Policy(pushes=False)) as server:
        async with pushed(server, chain()) as pushes:
            (accepted,) = await pushes.rest()
        assert accepted["type"] == "parrot:accepted"
        first = await claim(server, accepted["graph"], "a", "count")
        second = await claim(server, accepted["graph"], "b", "Sum up: " + text_of(first), nonce="m")
        assert [reply.json()["parrot"]["claimed"] for reply in (first, second)] == [True, True]
        assert text_of(second) == "[Sum up: [count]]"
        assert server.engine.generated == 2
