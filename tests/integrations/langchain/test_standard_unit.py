"""langchain-tests' own unit suite."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_tests.unit_tests import ChatModelUnitTests

from parrot_compat.integrations.langchain import ChatParrot


class TestStandardUnit(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatParrot

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "some-model"}

    @property
    def model_override_value(self) -> str:
        return "another-model"

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        environment = {"PARROT_API_KEY": "the key", "PARROT_BASE_URL": "http://elsewhere:1/v1"}
        expected = {"api_key": "the key", "base_url": "http://elsewhere:1/v1"}
        return environment, {}, expected
