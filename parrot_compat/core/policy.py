"""The policy: which ways of finishing apps sooner are in use. All of them, unless somebody measures what one is worth.

    Policy()                        # all
    Policy.read("no-slack")         # all but one
    Policy.read("paper")            # those of Parrot (OSDI'24), where this began
    Policy.read("paper,no-groups")

It knows their names and nothing of how they work; the manager, its sessions, the server and whoever starts engines look
here whether they may.

The invariant: a policy decides when and where a call runs, and how its answer comes to the app, never what it says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

__all__ = ["MECHANISMS", "Policy"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    plans: bool = True
    """Calls are taken ahead of their app, and each runs once what it reads is there. Off: the server takes none."""
    pushes: bool = True
    """The answer of a planned call goes to the app unasked. Off: the app asks for each, and takes its planned twin."""
    objectives: bool = True
    """What a call should be quick at is deduced from what is awaited. Off: each is latency-bound, and alone."""
    groups: bool = True
    """Calls of a stage, or that begin alike, are placed together. Off: each is placed by itself."""
    prefixes: bool = True
    """Inside our engine a prompt waits for what another computes now and, on a GPU, rows read what they share together.
    Off: only what is there already is used again, by each for itself."""
    app_order: bool = True
    """The app that began first goes first. Off: the call that was ready first."""
    newcomers: bool = True
    """The one call that is all its app has asked for goes as if its app had begun long ago: most often it is all there
    will be. Off: it goes behind the apps that began before it."""
    slack: bool = True
    """What may be late unnoticed gives way: the critical path decides, in seconds. Off: everything is due at once."""
    lengths: bool = True
    """How long a function's answers were says how long the next will be. Off: no answer teaches anything."""
    turns: bool = True
    """Inside an engine the apps of a tenant take turns. Off: an engine takes their calls as they come."""

    @classmethod
    def read(cls, text: str) -> Policy:
        """`all`, `paper` or `plain`, and what is left out of it as `no-NAME`, separated by commas; without one of the
        three it is all. Errors: `ValueError`, which says what there is."""
        policy, words = cls(), [word.strip() for word in text.split(",")]
        if words[0] in _SETS:
            policy, words = _SETS[words[0]], words[1:]
        for word in words:
            name = word.removeprefix("no-")
            if name == word or name not in MECHANISMS:
                known = ", ".join(f"no-{name}" for name in MECHANISMS)
                raise ValueError(f"{word!r} is no part of a policy: it is {', '.join(_SETS)}, and any of {known}")
            policy = replace(policy, **{MECHANISMS[name]: False})
        return policy

    @property
    def left_out(self) -> tuple[str, ...]:
        return tuple(name for name, field in MECHANISMS.items() if not getattr(self, field))


MECHANISMS: Mapping[str, str] = {item.name.replace("_", "-"): item.name for item in fields(Policy)}
"""What people call each, and the field of it."""

_SETS: Mapping[str, Policy] = {
    "all": Policy(),
    # Dependent calls are dispatched, objectives deduced, prefixes and stages kept together, apps served in their order.
    # Its clients never fetch what lies between; ours run the framework for real, and a push is how they need not.
    "paper": Policy(newcomers=False, slack=False, lengths=False, turns=False),
    "plain": Policy(**dict.fromkeys(MECHANISMS.values(), False)),
}
