"""What this machine has to give: device, free memory, cores. The only code that measures it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

import torch

from parrot_compat.core.errors import EngineError
from parrot_compat.gpu.config import EngineConfig, Machine

__all__ = ["choose_device", "measure", "physical_cores"]


def choose_device(config: EngineConfig) -> torch.device:
    if config.device == "cuda" and not torch.cuda.is_available():
        raise EngineError("device cuda was asked for, but torch finds no CUDA device")
    on_cuda = config.device == "cuda" or (config.device == "auto" and torch.cuda.is_available())
    return torch.device("cuda", torch.cuda.current_device()) if on_cuda else torch.device("cpu")


def measure(device: torch.device) -> Machine:
    """Call it when the weights are loaded: what is free then can hold KV."""
    kind: Literal["cpu", "cuda"] = "cuda" if device.type == "cuda" else "cpu"
    free = torch.cuda.mem_get_info(device)[0] if kind == "cuda" else _free_memory()
    return Machine(device=kind, free_bytes=free, cores=physical_cores())


def physical_cores() -> int:
    """Cores this process may run on, hyper-threads of one core counted once; OMP_NUM_THREADS speaks for itself."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdigit() and int(asked) > 0:
        return int(asked)
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_siblings(cpu) for cpu in allowed}
    quota = _cgroup("cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        return max(1, min(len(cores), int(quota[0]) // int(quota[1])))
    return max(1, len(cores))


def _siblings(cpu: int) -> str:
    try:
        return Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip()
    except OSError:
        return str(cpu)


def _free_memory() -> int:
    """Bytes that can be taken without swapping, within the container's limit."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024
    except OSError:  # not Linux: the free pages are what we know
        pass
    limit, used = _cgroup("memory.max"), _cgroup("memory.current")
    if not (limit.isdigit() and used.isdigit()):
        return free
    # files that were read, the weights among them, are counted as used and given up when memory is wanted
    kept = dict(line.split() for line in _cgroup("memory.stat").splitlines())
    files = sum(int(kept.get(name, 0)) for name in ("inactive_file", "active_file"))
    return max(0, min(free, int(limit) - max(0, int(used) - files)))


def _cgroup(name: str) -> str:
    try:
        return (Path("/sys/fs/cgroup") / name).read_text().strip()
    except OSError:
        return ""
