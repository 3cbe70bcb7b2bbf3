"""A Sensorium model as LangChain's chat model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from threading import Lock
from typing import Any, Literal, cast

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LangSmithParams, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.output_parsers import (
    JsonOutputKeyToolsParser,
    JsonOutputParser,
    PydanticOutputParser,
    PydanticToolsParser,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import ConfigDict, Field, PrivateAttr, model_validator

from ...encoders.errors import OptionError
from ..content import Access
from ..load import load
from ..model import Model
from ..prefix_cache import PrefixCache
from ..result import Result
from ..schemas import bounded
from .messages import messages_of

__all__ = ["ChatSensorium"]

_METHODS = ("json_schema", "function_calling", "json_mode")
_RENAMED = {"max_tokens": "max_new_tokens"}
_FIELDS = ("temperature", "top_p", "top_k", "seed", "max_tokens")


class ChatSensorium(BaseChatModel):
    """Chats with any model that `sensorium.sdk.load` takes; pictures, sounds and clips too if the model reads them.

    The model is loaded when it is first needed, and one that is loaded already is given as `client`. Threads may share
    it. Keyword arguments of a call (``invoke(…, regex=…)``) are those of `sensorium.sdk.GenerationOptions`.

    Attributes:
        model_name: what `sensorium.sdk.load` takes; also as ``model``.
        client: a loaded model instead.
        load_options: keyword arguments for `sensorium.sdk.load`.
        temperature, top_p, top_k, seed: as of `GenerationOptions`.
        max_tokens: the most tokens of an answer.
        stop: an answer ends before the first of these texts.
        streaming: whether `invoke` streams for its callbacks.
        allow_urls: whether messages may name URLs, which are then fetched from the public internet.
        allow_files: whether messages may name files of this machine; never for the messages of strangers.
        longest_string: characters that a text in a tool's arguments or in structured output has at most, where its
            schema does not say: small models would not stop. None for no bound.
        prefix_cache: remembers conversations, so that each turn is read from where it differs from the one before.
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, populate_by_name=True)

    model_name: str = Field(default="nano", alias="model")
    client: Model | None = Field(default=None, exclude=True, repr=False)
    load_options: dict[str, Any] = Field(default_factory=dict)
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    streaming: bool = False
    allow_urls: bool = False
    allow_files: bool = False
    longest_string: int | None = 200
    prefix_cache: PrefixCache | None = Field(default=None, exclude=True, repr=False)

    _loading: Any = PrivateAttr(default_factory=Lock)

    @model_validator(mode="after")
    def _named_after_its_client(self) -> ChatSensorium:
        if self.client is not None:
            self.model_name = self.client.name
        return self

    @property
    def loaded(self) -> Model:
        """The model; it is loaded first if need be.

        Raises:
            SensoriumError: as `sensorium.sdk.load`.
        """
        with self._loading:
            if self.client is None:
                self.client = load(self.model_name, **self.load_options)
            return self.client

    @property
    def _llm_type(self) -> str:
        return "sensorium"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name, **{name: getattr(self, name) for name in (*_FIELDS, "stop")}}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop, **kwargs)
        return LangSmithParams(**(params | {"ls_provider": "sensorium"}))

    def get_token_ids(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        return self.loaded.tokenizer.encode(text, add_special=False, parse_special=False)

    def get_num_tokens_from_messages(
        self, messages: Sequence[BaseMessage], tools: Sequence[Any] | None = None, **_: Any
    ) -> int:
        """Tokens of a prompt, the chat template's and those of media included."""
        bound = None if tools is None else [convert_to_openai_tool(tool) for tool in tools]
        return len(self.loaded.encode(self._messages(messages), tools=bound))

    def bind_tools(
        self,
        tools: Sequence[Mapping[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | bool | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Lets answers call tools; their arguments fulfil the tools' schemas by construction.

        Args:
            tools: whatever LangChain takes for a tool.
            tool_choice: ``auto``, ``none``, ``any`` (as ``required`` and True: one is called), or a tool's name.
            kwargs: options of generation.
        """
        made = [convert_to_openai_tool(cast("Any", tool)) for tool in tools]
        for tool in made:
            function = tool["function"]
            function["parameters"] = bounded(function.get("parameters") or {}, self.longest_string)
            function.pop("strict", None)
        return cast("Any", self.bind(tools=made, tool_choice=_choice(tool_choice), **kwargs))

    def with_structured_output(
        self,
        schema: Mapping[str, Any] | type | None = None,
        *,
        include_raw: bool = False,
        method: Literal["json_schema", "function_calling", "json_mode"] = "json_schema",
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Answers as objects that fulfil a schema by construction.

        Args:
            schema: a pydantic class, whose objects are returned; or a TypedDict, a JSON schema or a tool in OpenAI's
                form, for dictionaries. ``json_mode`` does without: any object.
            include_raw: return ``{"raw": message, "parsed": object or None, "parsing_error": error or None}``.
            method: ``json_schema`` and ``json_mode`` hold the text to the schema, ``function_calling`` a tool call.
            kwargs: options of generation.

        Raises:
            OptionError: an unknown method, or no schema.
        """
        if method not in _METHODS:
            raise OptionError("There is no such method.", given=method, expected=", ".join(_METHODS))
        if schema is None and method != "json_mode":
            raise OptionError("Structured output needs a schema.", hint='or method="json_mode"')
        kwargs.pop("strict", None)  # it always is
        given: Any = {"title": "answer", "type": "object"} if schema is None else schema
        is_class = isinstance(given, type) and is_basemodel_subclass(given)
        told = {"kwargs": {"method": method}, "schema": convert_to_openai_tool(given)}
        model: Runnable[LanguageModelInput, Any]
        parser: Any
        if method == "function_calling":
            name = told["schema"]["function"]["name"]
            model = self.bind_tools([given], tool_choice=name, ls_structured_output_format=told, **kwargs)
            pydantic = PydanticToolsParser(tools=[given], first_tool_only=True) if is_class else None
            parser = pydantic or JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
        else:
            form = bounded(convert_to_json_schema(given), self.longest_string)
            model = self.bind(schema=form, ls_structured_output_format=told, **kwargs)
            parser = PydanticOutputParser(pydantic_object=given) if is_class else JsonOutputParser()
        return _with_raw(model, parser) if include_raw else model | parser

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        result = self.loaded.ask(self._messages(messages), **self._options(stop, kwargs))
        calls = [{"name": call.name, "args": dict(call.arguments), "id": call.id} for call in result.tool_calls]
        message = AIMessage(
            content=result.text,
            tool_calls=cast("Any", calls),
            usage_metadata=_usage(result),
            response_metadata=self._metadata(result),
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        answer = self.loaded.stream(self._messages(messages), **self._options(stop, kwargs))
        for piece in answer:
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=piece))
            if run_manager is not None:
                run_manager.on_llm_new_token(piece, chunk=chunk)
            yield chunk
        yield ChatGenerationChunk(message=self._last(answer.result))

    def _last(self, result: Result) -> AIMessageChunk:
        """The chunk that ends a stream: calls, usage and why the answer ended."""
        calls = [
            tool_call_chunk(name=call.name, args=json.dumps(dict(call.arguments)), id=call.id, index=place)
            for place, call in enumerate(result.tool_calls)
        ]
        return AIMessageChunk(
            content="",
            tool_call_chunks=calls,
            usage_metadata=_usage(result),
            response_metadata=self._metadata(result),
            chunk_position="last",
        )

    def _messages(self, messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
        return messages_of(messages, Access(files=self.allow_files, urls=self.allow_urls))

    def _options(self, stop: list[str] | None, given: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments for the model: this object's, and before them those of the call."""
        options = {name: getattr(self, name) for name in (*_FIELDS, "prefix_cache")} | dict(given)
        return {_RENAMED.get(name, name): value for name, value in options.items()} | {
            "stop": stop or self.stop or None
        }

    def _metadata(self, result: Result) -> dict[str, Any]:
        reason = "tool_calls" if result.tool_calls else result.finish_reason
        return {"finish_reason": reason, "model_name": self.model_name, "model_provider": "sensorium"}


def _usage(result: Result) -> UsageMetadata:
    usage = result.usage
    details = InputTokenDetails(cache_read=usage.cached_tokens) if usage.cached_tokens else None
    found = UsageMetadata(
        input_tokens=usage.prompt_tokens, output_tokens=usage.new_tokens, total_tokens=usage.total_tokens
    )
    if details is not None:
        found["input_token_details"] = details
    return found


def _choice(given: str | bool | Mapping[str, Any] | None) -> str | None:
    """A choice of tools in the SDK's words."""
    if isinstance(given, Mapping):
        function = given.get("function")
        return str(function.get("name")) if isinstance(function, Mapping) else str(given.get("name", given.get("type")))
    if isinstance(given, bool):
        return "required" if given else None
    return "required" if given == "any" else given


def _with_raw(model: Runnable[LanguageModelInput, Any], parser: Any) -> Runnable[LanguageModelInput, Any]:
    """The message, and beside it what was read from it or why it could not be."""
    parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
    failed = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=model) | parsed.with_fallbacks([failed], exception_key="parsing_error")
