"""Builds the C++ kernels once for each machine, and loads them.

The compiler is the system's: the first of `CXX`, g++ and c++ that can build them. The result lies in the user's cache
folder under a name made of the sources, the compiler and the CPU, and appears there whole or not at all: any number of
processes may build at once. Where that fails there are no such kernels, a line in the log says why, and everything runs
on torch's.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from importlib import resources
from pathlib import Path

__all__ = ["SWITCH", "library"]

logger = logging.getLogger(__name__)

SWITCH = "PARROT_CPU_KERNELS"
"""Environment variable; "torch": no kernels of our own."""
FLAGS = (
    "-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-fopenmp",
    "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math",
)  # fmt: skip
BUILD_SECONDS = 300


@functools.cache
def library() -> ctypes.CDLL | None:
    """The kernels, or `None` where they cannot be had. Torch is loaded before: its OpenMP threads are used."""
    if os.environ.get(SWITCH) == "torch":
        return None
    try:
        return _loaded()
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:  # RuntimeError: there is no home folder
        output = getattr(error, "stderr", None) or error
        logger.warning("no CPU kernels of our own, torch's are used: %s", str(output).strip()[:2000])
        return None


def _loaded() -> ctypes.CDLL:
    """By the first compiler that can build them."""
    compilers = dict.fromkeys(found for name in _compilers() if (found := shutil.which(name)))
    if not compilers:
        raise FileNotFoundError("there is no C++ compiler (CXX, g++ or c++)")
    failed: subprocess.SubprocessError | None = None
    for compiler in compilers:
        try:
            place = _built(compiler)
        except subprocess.SubprocessError as error:
            failed = failed or error
            continue
        try:
            return ctypes.CDLL(str(place))
        except OSError:  # cut short, as by a machine that lost its power
            place.unlink()
            return ctypes.CDLL(str(_built(compiler)))
    assert failed is not None
    raise failed


def _built(compiler: str) -> Path:
    sources = {item.name: item.read_bytes() for item in resources.files(__package__).iterdir() if _is_source(item.name)}
    place = _cache() / f"{_fingerprint(compiler, sources)}.so"
    if place.exists():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".build-", dir=place.parent) as folder:
        for name, text in sources.items():
            Path(folder, name).write_bytes(text)
        units = sorted(name for name in sources if name.endswith(".cpp"))
        command = [compiler, *FLAGS, *units, "-o", "kernels.so"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True, timeout=BUILD_SECONDS)
        with Path(folder, "kernels.so").open("rb") as made:
            os.fsync(made.fileno())
        Path(folder, "kernels.so").replace(place)
    logger.info("built the CPU kernels with %s: %s", compiler, place)
    return place


def _compilers() -> list[str]:
    return [name for name in (os.environ.get("CXX"), "g++", "c++") if name]


def _is_source(name: str) -> bool:
    return name.endswith((".cpp", ".h"))


def _fingerprint(compiler: str, sources: dict[str, bytes]) -> str:
    version = subprocess.run([compiler, "--version"], check=True, capture_output=True, timeout=60).stdout
    made_from = hashlib.sha256("\0".join((compiler, *FLAGS, platform.machine(), _cpu())).encode() + version)
    for name in sorted(sources):
        made_from.update(name.encode() + b"\0" + sources[name])
    return made_from.hexdigest()[:20]


def _cpu() -> str:
    """What `-march=native` depends on: a home folder may be shared by machines that differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parrot_compat" / "kernels"
