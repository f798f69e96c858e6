"""Recorded answers in vLLM: `vllm serve --logits-processors recipes.benchmarks.replaying_vllm:ReplayProcessor`.

It runs in vLLM's environment, and needs of this repository nothing but `recordings`. The forward pass is real; where
the request's seed has a recording, every other token is made impossible.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

from .recordings import Recordings

__all__ = ["ReplayProcessor"]


class ReplayProcessor(AdapterLogitsProcessor):  # type: ignore[misc]
    def __init__(self, vllm_config: Any, device: Any, is_pin_memory: bool) -> None:
        super().__init__(vllm_config, device, is_pin_memory)
        self._recordings = Recordings.of_environment()

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: Any) -> Callable[[list[int], Any], Any] | None:
        seed = params.seed
        if self._recordings.token(seed, 0) is None:
            return None

        def replay(output_ids: list[int], logits: Any) -> Any:
            token = self._recordings.token(seed, len(output_ids))
            if token is not None:
                logits.fill_(float("-inf"))
                logits[token] = 0.0
            return logits

        return replay
