"""LangChain's own suites for chat models, on the real default model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import httpx
import pytest
import skimage
import soundfile
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from sensorium import sdk
from sensorium.sdk.langchain import ChatSensorium

# A model on this machine has no time-outs and no retries. Short texts: this is about forms, not about jokes.
STANDARD = {"temperature": 0, "max_tokens": 64, "stop": []}


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
        return STANDARD


@pytest.mark.slow
class TestIntegration(ChatModelIntegrationTests):
    @property
    def chat_model_class(self) -> type[ChatSensorium]:
        return ChatSensorium

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"client": nano(), "longest_string": 28}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return STANDARD

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

    @pytest.fixture(autouse=True)
    def real_media_from_here(self, root: Path) -> Iterator[None]:
        """The suite fetches a picture and a sound from the web."""
        picture = (Path(skimage.__file__).parent / "data" / "coffee.png").read_bytes()
        sound = BytesIO()
        soundfile.write(sound, *soundfile.read(root / "tests" / "data" / "speech.flac"), format="WAV")

        def get(url: str, **_: Any) -> httpx.Response:
            content = sound.getvalue() if url.endswith(".wav") else picture
            return httpx.Response(200, content=content, request=httpx.Request("GET", url))

        with (
            patch.object(httpx, "get", get),
            patch.dict(os.environ, LANGCHAIN_TESTS_USER_AGENT="none: nothing is fetched"),
        ):
            yield

    @pytest.mark.parametrize("model", [{}, {"output_version": "v1"}], indirect=True)
    @pytest.mark.xfail(strict=True, reason="nano, of 135M parameters, does not choose to call a tool by itself")
    def test_agent_loop(self, model: BaseChatModel) -> None:
        super().test_agent_loop(model)
