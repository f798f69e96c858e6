"""GET /v1/parrot: what this server can do for an app beyond answering. Clients ask once, and plan only if it answers.

It knows nothing of sessions. The invariant: what is listed here works.
"""

from __future__ import annotations

from fastapi import APIRouter, Response

from parrot_compat import __version__
from parrot_compat.core.policy import Policy
from parrot_compat.core.transform import NAMES
from parrot_compat.server.serving import send_json

__all__ = ["router"]

LEVELS = ("annotate", "plan", "claim", "reference")
PLANS = ("plan", "claim")


def router(policy: Policy) -> APIRouter:
    routes = APIRouter()

    @routes.get("/v1/parrot", summary="What this server can do for an app", tags=["parrot"])
    async def capabilities() -> Response:
        return send_json(
            {
                "object": "parrot.capabilities",
                "v": 1,
                "version": __version__,
                "levels": [level for level in LEVELS if policy.plans or level not in PLANS],
                "transforms": list(NAMES),
            }
        )

    return routes
