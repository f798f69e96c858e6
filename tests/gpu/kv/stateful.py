"""Settings of the stateful property tests: many short lives rather than few long ones, and no clock."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

__all__ = ["FAST", "THOROUGH"]

FAST = settings(max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))
THOROUGH = settings(FAST, max_examples=200, stateful_step_count=50)
