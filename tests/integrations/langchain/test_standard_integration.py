"""langchain-tests' own integration suite, against our own server with a real engine and random weights."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests

from parrot_compat.integrations.langchain import ChatParrot

from ..served import MODELS, Served

no_sense = pytest.mark.xfail(reason="a model with random weights does not choose the arguments that are asked for")
both_forms = pytest.mark.parametrize("model", [{}, {"output_version": "v1"}], indirect=True)


class TestStandardIntegration(ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _at_our_server(self, real: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PARROT_BASE_URL", real.url)

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatParrot

    @property
    def chat_model_params(self) -> dict[str, Any]:
        # random weights may end a text before it has begun
        return {"model": MODELS[0], "max_tokens": 60, "model_kwargs": {"min_tokens": 2}}

    @property
    def model_override_value(self) -> str:
        return MODELS[1]

    @no_sense
    @both_forms
    def test_tool_calling(self, model: BaseChatModel) -> None:
        super().test_tool_calling(model)

    @no_sense
    async def test_tool_calling_async(self, model: BaseChatModel) -> None:
        await super().test_tool_calling_async(model)

    @no_sense
    @both_forms
    def test_agent_loop(self, model: BaseChatModel) -> None:
        super().test_agent_loop(model)

    @no_sense
    def test_unicode_tool_call_integration(self, model: BaseChatModel, **more: Any) -> None:
        super().test_unicode_tool_call_integration(model, **more)
