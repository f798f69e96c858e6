"""Checkpoints that are fetched from the hub: what of them, in which order, and what is told when there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
from huggingface_hub.utils import filter_repo_objects

from parrot_compat.core.errors import ModelRefused
from parrot_compat.gpu.models.weights import locate

Checkpoint = Callable[[str], Path]
SMALL = {"config.json", "tokenizer.json", "tokenizer.model", "chat_template.jinja", "1_Pooling/config.json"}
WEIGHTS = {"model.safetensors", "model-00001-of-00003.safetensors"}
OTHERS = {
    "consolidated.safetensors", "consolidated-00001-of-00002.safetensors", "original/model.safetensors",
    "original/consolidated.00.pth", "pytorch_model.bin",
}  # fmt: skip


def hub_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """A hub that gives `folder` for every model; the files that it was asked for, call after call."""
    asked: list[set[str]] = []

    def download(model: str, *, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
        patterns = {"allow_patterns": allow_patterns, "ignore_patterns": ignore_patterns}
        asked.append(set(filter_repo_objects(SMALL | WEIGHTS | OTHERS, **patterns)))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return asked


def test_the_small_files_come_first_and_of_the_weights_only_those_that_are_read(
    tiny_checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = hub_of(tiny_checkpoint("llama"), monkeypatch)

    assert locate("somebody/something") == tiny_checkpoint("llama")
    assert asked == [SMALL, SMALL | WEIGHTS]


def test_the_weights_of_a_model_that_is_refused_are_not_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    asked = hub_of(tmp_path, monkeypatch)

    with pytest.raises(ModelRefused, match=r"config\.json: model_type 'vit' is not served"):
        locate("somebody/something")
    assert asked == [SMALL]


def test_a_hub_id_that_cannot_be_had_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))

    with pytest.raises(ModelRefused, match="'nobody/nothing' is neither a folder here nor a model"):
        locate("nobody/nothing")


def test_a_hub_that_fails_on_the_way_is_refused_by_the_models_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*asked: Any, **more: Any) -> str:
        raise httpx.ProxyError("the proxy does not answer\n\nbut for  mistakes " + "and more " * 100)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(
        ModelRefused, match=r"'nobody/nothing' is neither.*: the proxy does not answer but for mist"
    ) as refused:
        locate("nobody/nothing")
    assert refused.value.message.endswith(" …") and len(refused.value.message) < 500


@pytest.mark.parametrize("kind", [RepositoryNotFoundError, GatedRepoError])
def test_a_model_that_the_hub_does_not_show_may_be_misspelt_or_need_a_token(
    kind: type[RepositoryNotFoundError], monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*asked: Any, **more: Any) -> str:
        response = httpx.Response(401, request=httpx.Request("GET", "https://hub.example/api/models/nobody/nothing"))
        raise kind("401 Client Error.\n\nCannot access it.\nMake sure you are authenticated.", response=response)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(ModelRefused, match=r"Error\. Cannot access it\. Make sure .*is the name right\?.* HF_TOKEN"):
        locate("nobody/nothing")
