"""The environment: what it asks of a server, beside what the command line does.

It knows how settings are called there and how texts become values; `Settings` says what is wrong with them. A setting
is `PARROT_` and the name of its field; the options that are called otherwise have their own names there, too.

The invariant: what is set there takes effect, or is an error, or is among the `strangers` that the server warns of;
never does what others say there for themselves (clients, Kubernetes) keep it from starting.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from parrot_compat.settings import BadSettings, Settings

__all__ = ["settings_of", "strangers"]

KEYS_FILE = "PARROT_API_KEYS_FILE"
NOT_OURS = frozenset({"PARROT_BASE_URL", "PARROT_API_KEY", "PARROT_PLANNING", "PARROT_CPU_KERNELS"})
"""Read by clients, and by the process of an engine."""
_NAMES: Mapping[str, tuple[str, ...]] = {
    **{item.name: (f"PARROT_{item.name.upper()}",) for item in fields(Settings)},
    "drain_s": ("PARROT_DRAIN", "PARROT_DRAIN_S"),  # as the option is called, before the field
}
_LINK = re.compile(r"PARROT_(SERVICE|PORT)_|PARROT_.*_(SERVICE_(HOST|PORT)|PORT_\d+_(TCP|UDP|SCTP))(_|$)")


def settings_of(environment: Mapping[str, str], **asked: Any) -> Settings:
    """What was `asked` (`None`: not asked), then the environment, then the defaults; the keys of a file are added to
    those that were named. Errors: `BadSettings`."""
    values = {name: value for name, value in asked.items() if value is not None}
    file = values.pop("api_keys_file", environment.get(KEYS_FILE) or None)
    for item in fields(Settings):
        for variable in _NAMES[item.name]:
            text = environment.get(variable, "")
            if item.name not in values and text and not _is_link(variable, text):
                values[item.name] = _value(variable, text, str(item.type))
    if file is not None:
        values["api_keys"] = (*values.get("api_keys", ()), *_keys_in(Path(file)))
    return Settings(**values)


def strangers(environment: Mapping[str, str]) -> list[str]:
    """Names that look like ours, are set and mean nothing to us, each with the one that may have been meant."""
    known = {name for names in _NAMES.values() for name in names} | {KEYS_FILE}
    unknown = [
        name
        for name, text in sorted(environment.items())
        if name.startswith("PARROT_") and text and name not in known | NOT_OURS and not _is_link(name, text)
    ]
    near = {name: difflib.get_close_matches(name, known, n=1) for name in unknown}
    return [f"{name} (is it {near[name][0]}?)" if near[name] else name for name in unknown]


def _is_link(name: str, text: str) -> bool:
    """Kubernetes tells every container of a namespace where its services are: one that is called parrot, or
    parrot-something, has names like ours (PARROT_PORT=tcp://10.96.0.12:8000)."""
    return _LINK.match(name) is not None or (
        name.endswith("_PORT") and text.startswith(("tcp://", "udp://", "sctp://"))
    )


def _value(variable: str, text: str, kind: str) -> Any:
    read, wanted = _READERS[kind]
    try:
        value = read(text)
    except ValueError:
        raise BadSettings(f"{variable}={text!r}: {wanted} is needed") from None
    if variable == "PARROT_API_KEYS" and not value:
        raise BadSettings(f"{variable} is set and names no key: unset it to serve this machine without keys")
    return value


def _keys_in(path: Path) -> list[str]:
    """One on a line; empty lines and those that begin with `#` are none."""
    try:
        lines = [line.strip() for line in path.read_text().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise BadSettings(f"--api-keys-file {path} cannot be read: {reason}") from None
    keys = [line for line in lines if line and not line.startswith("#")]
    if not keys:
        raise BadSettings(f"--api-keys-file {path} names no key")
    return keys


def _truth(text: str) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def _list(text: str) -> tuple[str, ...]:
    return tuple(item.strip() for item in text.split(",") if item.strip())


_READERS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "str": (str, "a text"),
    "str | None": (str, "a text"),
    "int": (int, "a whole number"),
    "int | None": (int, "a whole number"),
    "float": (float, "a number"),
    "bool": (_truth, "1 or 0"),
    "bool | None": (_truth, "1 or 0"),
    "tuple[str, ...]": (_list, "a list"),
}
