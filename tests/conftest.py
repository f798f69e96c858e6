"""What holds for all tests: a property is tried on the same examples in every run, and how long one takes, or takes to
be drawn, says how busy the machine is. To try others: `pytest --hypothesis-profile default`."""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("hypothesis") is not None:  # the judges of tests/conformance run without it
    from hypothesis import HealthCheck, settings

    settings.register_profile(
        "same everywhere",
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile("same everywhere")
