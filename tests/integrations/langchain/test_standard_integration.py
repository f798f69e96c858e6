"""langchain-tests' own integration suite, against our own server with a real engine and builtin:tiny."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests

from parrot_compat.integrations.langchain import ChatParrot

from ..served import MODELS, Served


class TestStandardIntegration(ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _at_our_server(self, real: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PARROT_BASE_URL", real.url)

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatParrot

    @property
    def chat_model_params(self) -> dict[str, Any]:
        # a small model may end a text before it has begun
        return {"model": MODELS[0], "max_tokens": 60, "temperature": 0, "model_kwargs": {"min_tokens": 2}}

    @property
    def model_override_value(self) -> str:
        return MODELS[1]

    @property
    def supports_json_mode(self) -> bool:
        return True
