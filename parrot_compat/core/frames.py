"""Errors without the frames that they came through.

It knows exceptions, and nothing of who raises them.
"""

from __future__ import annotations

import copy
from typing import TypeVar

from .errors import ParrotError

__all__ = ["without_frames"]

Error = TypeVar("Error", bound=ParrotError)


def without_frames(error: Error) -> Error:
    """The error, to be kept or to be raised once more. One that was raised holds the frames that it came through, and
    those all that they were at: prompts, requests, the readers before."""
    return copy.copy(error)
