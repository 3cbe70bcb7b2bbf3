"""LangChain's own suites for chat models, on the real default model."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from sensorium import sdk
from sensorium.sdk.langchain import ChatSensorium


@cache
def nano() -> sdk.Model:
    return sdk.load("nano")


class TestUnits(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[ChatSensorium]:
        return ChatSensorium

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "nano"}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {"temperature": 0, "max_tokens": 100, "stop": []}  # a model on this machine has no retries


@pytest.mark.slow
class TestIntegration(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[ChatSensorium]:
        return ChatSensorium

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"client": nano()}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {"temperature": 0, "max_tokens": 100, "stop": []}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_image_inputs(self) -> bool:
        return True

    @property
    def supports_image_tool_message(self) -> bool:
        return True

    @property
    def supports_audio_inputs(self) -> bool:
        return True

    @property
    def supports_anthropic_inputs(self) -> bool:
        return True
