"""What holds for all tests: how long an example takes, or takes to be drawn, says how busy the machine is."""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("hypothesis") is not None:  # the judges of tests/conformance run without it
    from hypothesis import HealthCheck, settings

    settings.register_profile("busy machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("busy machine")
