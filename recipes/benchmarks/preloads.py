"""Libraries that a server is started with, as the loader takes them: `LD_PRELOAD`, which ends a name at blanks and ":".

It knows names of files, nothing of servers.

The invariant: a library that is asked for is named so that it is loaded; the loader only warns of one it cannot find.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["preloadable", "tcmalloc"]

ENDS_A_NAME = re.compile(r"[\s:]")


def tcmalloc() -> Path | None:
    """As the loader knows it."""
    program = shutil.which("ldconfig") or "/sbin/ldconfig"
    with suppress(OSError):
        known = subprocess.run([program, "-p"], capture_output=True, text=True, check=False).stdout
        found = re.search(r"libtcmalloc_minimal\.so\.4 .*=> (\S+)", known)
        return Path(found[1]) if found else None
    return None


@contextmanager
def preloadable(library: Path) -> Iterator[Path]:
    """A name of it without blanks and ":", for as long as the block: where its own has some that of a link."""
    if ENDS_A_NAME.search(str(library)) is None:
        yield library
        return
    with tempfile.TemporaryDirectory(prefix="parrot-", dir=_folder()) as folder:
        link = Path(folder, library.name)
        link.symlink_to(library.absolute())
        yield link


def _folder() -> str | None:
    """Of temporary files, unless its name is of no more use."""
    return "/tmp" if ENDS_A_NAME.search(tempfile.gettempdir()) else None
