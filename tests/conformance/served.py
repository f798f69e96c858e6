"""Our server, for as long as a judge needs it: `parrot serve` on a free port of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOAD_S = 300


@contextmanager
def serving(folder: Path, names: Sequence[str] = (), *, max_model_len: int = 512) -> Iterator[str]:
    """Base URL, without /v1. `names` are what the judge's requests call the model."""
    ready, log = folder / "ready.json", folder / "server.log"
    ready.unlink(missing_ok=True)
    command = [sys.executable, "-m", "parrot_compat", "serve", "--port", "0", "--ready-file", str(ready)]
    command += ["--max-model-len", str(max_model_len), "--kv-tokens", str(16 * max_model_len), "--dtype", "float32"]
    for name in ("builtin:tiny", *names):
        command += ["--served-model-name", name]
    with log.open("w") as out:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env=os.environ | {"PYTHONPATH": str(ROOT)}
        )
        try:
            deadline = time.monotonic() + LOAD_S
            while not ready.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"the server did not start:\n{log.read_text()}")
                time.sleep(0.1)
            yield str(json.loads(ready.read_text())["base_url"]).removesuffix("/v1")
        finally:
            process.terminate()
            process.wait(60)
