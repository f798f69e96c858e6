"""The ten workloads, by name. W1 to W7 are the paper's experiments, W8 to W10 what apps do today."""

from __future__ import annotations

from collections.abc import Mapping

from . import (
    w01_refine,
    w02_refine_load,
    w03_map_reduce,
    w04_copilot,
    w05_shared_apps,
    w06_coding_team,
    w07_mixed,
    w08_debate,
    w09_tool_loop,
    w10_edit_loop,
)
from .workload import App, Round, Shape, Workload

__all__ = ["WORKLOADS", "App", "Round", "Shape", "Workload"]

_MODULES = (
    w01_refine,
    w02_refine_load,
    w03_map_reduce,
    w04_copilot,
    w05_shared_apps,
    w06_coding_team,
    w07_mixed,
    w08_debate,
    w09_tool_loop,
    w10_edit_loop,
)
WORKLOADS: Mapping[str, Workload] = {module.WORKLOAD.name: module.WORKLOAD for module in _MODULES}
