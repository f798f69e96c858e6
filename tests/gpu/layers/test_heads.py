"""How wide a head is has one answer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from parrot_compat.gpu.layers.heads import head_dim


@pytest.mark.parametrize(("stated", "dim"), [({"head_dim": 32}, 32), ({"head_dim": None}, 16), ({}, 16)])
def test_a_head_is_as_wide_as_the_config_says_or_its_share_of_the_hidden_size(stated: dict[str, Any], dim: int) -> None:
    assert head_dim(SimpleNamespace(hidden_size=64, num_attention_heads=4, **stated)) == dim
