"""Every error that Sensorium raises on purpose.

Each one says what was given, what was expected and the way out. They are defined in the lowest layer so that every
layer can raise them; users import them from ``sensorium.sdk`` (docs/decisions/0003).
"""

from __future__ import annotations

__all__ = [
    "ChatTemplateError",
    "CheckpointError",
    "ContextLengthError",
    "DownloadError",
    "EngineError",
    "IntegrityError",
    "InvalidInputError",
    "ModelNotFoundError",
    "OptionError",
    "RankFailure",
    "SensoriumError",
    "TokenizerError",
    "UnknownFamilyError",
    "UnsupportedInputError",
]


class SensoriumError(Exception):
    """Base of all Sensorium errors.

    Args:
        problem: one sentence that says what is wrong and where.
        given: the offending value, as found.
        expected: what would have been right.
        hint: the way out.
    """

    def __init__(self, problem: str, *, given: object = None, expected: object = None, hint: str | None = None) -> None:
        self.problem = problem
        self.given = given
        self.expected = expected
        self.hint = hint
        lines = [problem]
        if given is not None:
            lines.append(f"  given:    {given}")
        if expected is not None:
            lines.append(f"  expected: {expected}")
        if hint is not None:
            lines.append(f"  way out:  {hint}")
        super().__init__("\n".join(lines))


class InvalidInputError(SensoriumError, ValueError):
    """A value that can never be right: an empty prompt, an unknown role, a token id outside the vocabulary."""


class UnsupportedInputError(InvalidInputError):
    """A well-formed input that this model or this build cannot take, such as an image for a text-only model."""


class OptionError(InvalidInputError):
    """A generation option that is unknown, out of range, or contradicts another one. Names the option."""


class ContextLengthError(InvalidInputError):
    """The prompt, with the tokens asked for, does not fit the model's context. Nothing was truncated.

    Attributes:
        tokens: how many tokens were asked for in all.
        limit: how many the model can hold.
    """

    def __init__(self, problem: str, *, tokens: int, limit: int, hint: str | None = None) -> None:
        self.tokens = tokens
        self.limit = limit
        super().__init__(problem, given=f"{tokens} tokens", expected=f"at most {limit} tokens", hint=hint)


class CheckpointError(SensoriumError):
    """A model file that is damaged, hostile, incomplete or not what its configuration says."""


class UnknownFamilyError(CheckpointError):
    """A checkpoint whose architecture Sensorium does not know. Lists the families that it knows."""


class TokenizerError(SensoriumError):
    """A tokenizer file that is missing, damaged or of an unknown kind."""


class ChatTemplateError(SensoriumError):
    """A chat template that is missing, fails to render or breaks the sandbox's bounds."""


class ModelNotFoundError(SensoriumError, FileNotFoundError):
    """No model under that name: not a card, not a directory, not a file, not on the hub."""

    def __str__(self) -> str:  # OSError would print its errno
        return str(self.args[0])


class DownloadError(SensoriumError):
    """A source of weights could not be reached or answered with an error."""


class IntegrityError(CheckpointError):
    """A downloaded or cached file whose size or sha256 is not the one that its card names."""


class EngineError(SensoriumError):
    """The engine failed while computing: non-finite logits, out of memory. The next request may work."""


class RankFailure(EngineError):
    """A process of a group died or fell silent; the group cannot be used any more.

    Attributes:
        ranks: the processes, as the group counts, one of which failed.
    """

    def __init__(self, problem: str, *, ranks: tuple[int, ...], hint: str | None = None) -> None:
        self.ranks = ranks
        super().__init__(problem, given=f"rank {' or '.join(map(str, ranks))}", hint=hint)
