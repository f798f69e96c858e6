"""The mean of several runs' weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from recipes.train_builtin import average


def checkpoint(folder: Path, value: float, *shape: int) -> Path:
    folder.mkdir()
    save_file({"a": torch.full(shape or (2, 3), value, dtype=torch.float16)}, folder / "model.safetensors")
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_text(f"{name} of {folder.name}")
    return folder


def test_each_counts_as_much_as_was_said_and_the_rest_is_the_firsts(tmp_path: Path) -> None:
    one, two = (str(checkpoint(tmp_path / name, value)) for name, value in (("one", 1.0), ("two", 5.0)))
    average.main([one, two, "--weights", "0.6", "0.2", "--out", str(tmp_path / "mean")])
    (found,) = load_file(tmp_path / "mean" / "model.safetensors").values()
    assert found.dtype == torch.float16 and found.tolist() == [[2.0] * 3] * 2
    assert (tmp_path / "mean" / "config.json").read_text() == "config.json of one"
    average.main([one, two, "--out", str(tmp_path / "mean")])
    assert load_file(tmp_path / "mean" / "model.safetensors")["a"].tolist() == [[3.0] * 3] * 2


def test_what_has_other_tensors_or_no_weight_is_refused(tmp_path: Path) -> None:
    one, other = str(checkpoint(tmp_path / "one", 1.0)), str(checkpoint(tmp_path / "other", 1.0, 3, 2))
    with pytest.raises(ValueError, match="do not have the same tensors"):
        average.main([one, other, "--out", str(tmp_path / "mean")])
    with pytest.raises(SystemExit):
        average.main([one, one, "--weights", "1", "--out", str(tmp_path / "mean")])
    assert not (tmp_path / "mean").exists()
