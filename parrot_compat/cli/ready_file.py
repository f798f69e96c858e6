"""The ready file: it tells other programs that a server answers, and where.

It knows nothing of the server. Several servers, one after another, may use one file: a new one may load while an old
one still gives its last answers.

The invariant: the file is whole, and there only while the server that is named in it takes requests, or where that one
was killed and no other has begun since.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from parrot_compat.settings import BadSettings

__all__ = ["ReadyFile"]


class ReadyFile:
    def __init__(self, path: Path) -> None:
        """Errors: `BadSettings`."""
        if path.is_dir():
            raise BadSettings(f"--ready-file {path} is a folder: name a file")
        self._path = path
        self._written: str | None = None

    def clear(self) -> None:
        """Take away what an earlier server has left, or still has. Errors: `BadSettings`, also where none could be
        written here: that is not to be found out when the model has been loaded."""
        draft = self._draft()
        try:
            draft.write_text("")
            draft.unlink()
            self._path.unlink(missing_ok=True)
        except OSError as error:
            raise self._not_written(error) from error

    def write(self, base_url: str) -> None:
        """Errors: `BadSettings`."""
        text = json.dumps({"base_url": base_url, "pid": os.getpid()})
        draft = self._draft()
        try:
            draft.write_text(text)
            draft.replace(self._path)
        except OSError as error:
            raise self._not_written(error) from error
        self._written = text

    def remove(self) -> None:
        """Take away what was written here, not what another server has written since."""
        written, self._written = self._written, None
        with contextlib.suppress(OSError):  # it is gone already
            if written is not None and self._path.read_text() == written:
                self._path.unlink()

    def _draft(self) -> Path:
        return self._path.with_name(f".{self._path.name}.{os.getpid()}")

    def _not_written(self, error: OSError) -> BadSettings:
        return BadSettings(f"--ready-file {self._path} cannot be written: {error.strerror}")
