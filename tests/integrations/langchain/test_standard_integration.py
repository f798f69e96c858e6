"""langchain-tests' own integration suite, against our own server."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.exceptions import ModelInvalidRequestError
from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool
from langchain_tests.integration_tests import ChatModelIntegrationTests

from parrot_compat.integrations.langchain import ChatParrot

from ..served import MODELS, Served

no_tools = pytest.mark.xfail(
    reason="our server refuses tools with a 400 until it parses tool calls", raises=ModelInvalidRequestError
)
no_schema = pytest.mark.xfail(
    reason="our server refuses response_format with a 400 until it has structured output",
    raises=ModelInvalidRequestError,
)
both_forms = pytest.mark.parametrize("model", [{}, {"output_version": "v1"}], indirect=True)
three_schemas = pytest.mark.parametrize("schema_type", ["pydantic", "typeddict", "json_schema"])


class TestStandardIntegration(ChatModelIntegrationTests):
    @pytest.fixture(autouse=True)
    def _at_our_server(self, ours: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PARROT_BASE_URL", ours.url)

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatParrot

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": MODELS[0]}

    @property
    def model_override_value(self) -> str:
        return MODELS[1]

    @no_tools
    @both_forms
    def test_tool_calling(self, model: BaseChatModel) -> None:
        super().test_tool_calling(model)

    @no_tools
    async def test_tool_calling_async(self, model: BaseChatModel) -> None:
        await super().test_tool_calling_async(model)

    @no_tools
    def test_bind_runnables_as_tools(self, model: BaseChatModel) -> None:
        super().test_bind_runnables_as_tools(model)

    @no_tools
    def test_tool_message_histories_string_content(self, model: BaseChatModel, my_adder_tool: BaseTool) -> None:
        super().test_tool_message_histories_string_content(model, my_adder_tool)

    @no_tools
    def test_tool_message_histories_list_content(self, model: BaseChatModel, my_adder_tool: BaseTool) -> None:
        super().test_tool_message_histories_list_content(model, my_adder_tool)

    @no_tools
    def test_tool_choice(self, model: BaseChatModel) -> None:
        super().test_tool_choice(model)

    @no_tools
    def test_tool_calling_with_no_arguments(self, model: BaseChatModel) -> None:
        super().test_tool_calling_with_no_arguments(model)

    @no_tools
    def test_tool_message_error_status(self, model: BaseChatModel, my_adder_tool: BaseTool) -> None:
        super().test_tool_message_error_status(model, my_adder_tool)

    @no_tools
    def test_structured_few_shot_examples(self, model: BaseChatModel, my_adder_tool: BaseTool) -> None:
        super().test_structured_few_shot_examples(model, my_adder_tool)

    @no_schema
    @three_schemas
    def test_structured_output(self, model: BaseChatModel, schema_type: Any) -> None:
        super().test_structured_output(model, schema_type)

    @no_schema
    @three_schemas
    async def test_structured_output_async(self, model: BaseChatModel, schema_type: Any) -> None:
        await super().test_structured_output_async(model, schema_type)

    @no_schema
    def test_structured_output_pydantic_2_v1(self, model: BaseChatModel) -> None:
        super().test_structured_output_pydantic_2_v1(model)

    @no_schema
    def test_structured_output_optional_param(self, model: BaseChatModel) -> None:
        super().test_structured_output_optional_param(model)

    @no_tools
    @both_forms
    def test_agent_loop(self, model: BaseChatModel) -> None:
        super().test_agent_loop(model)

    @no_tools
    def test_unicode_tool_call_integration(self, model: BaseChatModel, **more: Any) -> None:
        super().test_unicode_tool_call_integration(model, **more)
