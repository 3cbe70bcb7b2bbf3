"""What generation returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["FinishReason", "Result", "Timings", "TokenLogprob", "ToolCall", "Usage"]

#: ``stop``: the model ended its answer, or a stop text or token did; ``length``: max_new_tokens were reached.
FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request.

    Attributes:
        prompt_tokens: with what the chat template adds.
        new_tokens: without a stop token.
        cached_tokens: those of the prompt that were not read again; see `PrefixCache`.
    """

    prompt_tokens: int
    new_tokens: int
    cached_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        """Prompt and answer together."""
        return self.prompt_tokens + self.new_tokens


@dataclass(frozen=True, slots=True)
class Timings:
    """Seconds; for a batch those of the whole batch.

    Attributes:
        first_token: from the request to the first token of the answer.
        total: from the request to the end.
        steps: decoding steps after the first token.
    """

    first_token: float
    total: float
    steps: int

    @property
    def tokens_per_second(self) -> float:
        """Decoding speed of one row, without the prompt; 0 where nothing was decoded."""
        seconds = self.total - self.first_token
        return self.steps / seconds if seconds > 0 else 0.0


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token's natural log-probability under the model, and those of the likeliest tokens (id, log-probability)."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model asks its caller to make.

    Attributes:
        id: its own, for the message of the role ``tool`` that brings the result (``tool_call_id``).
        name: of the tool.
        arguments: as the tool's schema says.
    """

    id: str
    name: str
    arguments: Mapping[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """OpenAI's form, as ``tool_calls`` of a message holds it, but the arguments stay an object."""
        return {"id": self.id, "type": "function", "function": {"name": self.name, "arguments": dict(self.arguments)}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One answer.

    Attributes:
        text: without special tokens, without the stop text and without tool calls.
        tokens: ids of the answer, without a stop token that ended it; with those that made a stop text.
        finish_reason: why it ended.
        stop: the stop text or the id of the stop token that ended it, or None.
        usage: token counts.
        timings: seconds.
        logprobs: one for each of `tokens`, if they were asked for.
        tool_calls: in order; only calls that are complete. One that `length` broke off is text.
    """

    text: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    stop: str | int | None
    usage: Usage
    timings: Timings
    logprobs: tuple[TokenLogprob, ...] | None = None
    tool_calls: tuple[ToolCall, ...] = ()

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        out: dict[str, Any] = {
            "text": self.text,
            "tokens": list(self.tokens),
            "finish_reason": self.finish_reason,
            "stop": self.stop,
            "usage": {
                "prompt_tokens": self.usage.prompt_tokens,
                "new_tokens": self.usage.new_tokens,
                "total_tokens": self.usage.total_tokens,
                "cached_tokens": self.usage.cached_tokens,
            },
            "timings": {
                "first_token_seconds": round(self.timings.first_token, 4),
                "total_seconds": round(self.timings.total, 4),
                "tokens_per_second": round(self.timings.tokens_per_second, 2),
            },
        }
        if self.tool_calls:
            out["tool_calls"] = [call.to_dict() for call in self.tool_calls]
        if self.logprobs is not None:
            entries = [{"token": e.token, "logprob": e.logprob, "top": list(map(list, e.top))} for e in self.logprobs]
            out["logprobs"] = entries
        return out
