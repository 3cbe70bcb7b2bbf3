"""Models whose keys and values are kept in another way: a rolling window past the context, and a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sensorium import sdk

ROLLING = sdk.Rolling(sinks=3, window=41)
LONG = "the quick brown fox jumps over the lazy dog, " * 7  # 315 bytes and as many tokens; the context is 128

Tiny = Callable[..., Path]


def rolling(tiny_model: Tiny) -> sdk.Model:
    return sdk.load(tiny_model(), dtype="float32", device="cpu", rolling=ROLLING)


def greedy(model: sdk.Model, text: str, count: int) -> Sequence[int]:
    """The tokens that follow a text, as many as asked for."""
    result = model.ask(text, raw=True, max_new_tokens=count, min_new_tokens=count, temperature=0.0)
    assert len(result.tokens) == count
    return result.tokens


def test_texts_go_on_past_the_context_only_where_asked(tiny_model: Tiny) -> None:
    plain, endless = sdk.load(tiny_model(), dtype="float32", device="cpu"), rolling(tiny_model)
    for text, count in ((LONG, 5), (LONG[:100], 60), (LONG[:20], 300)):
        with pytest.raises(sdk.ContextLengthError):
            greedy(plain, text, count)
        greedy(endless, text, count)
    assert endless.ask(LONG, raw=True).usage.prompt_tokens > 128
    assert endless.engine.info.endless and not plain.engine.info.endless


def test_it_says_that_it_is_approximate(tiny_model: Tiny) -> None:
    assert "approximate: 3 sinks and a window of 41" in repr(rolling(tiny_model))


def test_short_texts_are_as_without(tiny_model: Tiny) -> None:
    plain = sdk.load(tiny_model(), dtype="float32", device="cpu")
    assert greedy(rolling(tiny_model), LONG[:20], 12) == greedy(plain, LONG[:20], 12)


def test_batches_pieces_and_scores_agree(tiny_model: Tiny) -> None:
    """Prompts behind, before and at the end of the window, decoded together past it."""
    model = rolling(tiny_model)
    prompts = [LONG, LONG[:30], LONG[50:190]]
    alone = [greedy(model, prompt, 50) for prompt in prompts]
    together = model.batch(prompts, raw=True, max_new_tokens=50, min_new_tokens=50, temperature=0.0)
    assert [each.tokens for each in together] == alone
    prompt = list(model.encode(LONG, raw=True))
    scores = model.logits([*prompt, *alone[0]])
    assert np.argmax(scores[len(prompt) - 1 : -1], axis=-1).tolist() == list(alone[0])


def test_a_conversation_is_read_from_where_it_differs(tiny_model: Tiny) -> None:
    model, remembered = rolling(tiny_model), sdk.PrefixCache()
    options: dict[str, Any] = {"raw": True, "max_new_tokens": 9, "temperature": 0.0}
    for text in (LONG[:25], LONG[:33], LONG[:200], LONG[:200] + "and so on", LONG[:90]):
        assert model.ask(text, prefix_cache=remembered, **options).tokens == model.ask(text, **options).tokens


def test_beams_go_past_the_context(tiny_model: Tiny) -> None:
    result = rolling(tiny_model).ask(LONG, raw=True, beams=3, max_new_tokens=20)
    assert result.tokens


def test_old_positions_lie_in_a_file(tiny_model: Tiny, tmp_path: Path) -> None:
    plain = sdk.load(tiny_model(), dtype="float32", device="cpu")
    kept = sdk.load(tiny_model(), dtype="float32", device="cpu", offload=tmp_path)
    assert greedy(kept, LONG[:60], 60) == greedy(plain, LONG[:60], 60)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"rolling": (4, 100)}, "sdk.Rolling"),
        ({"rolling": ROLLING, "cache_precision": "int8"}, "precision and rolling"),
        ({"rolling": ROLLING, "offload": "."}, "rolling and offload"),
        ({"offload": "/no/such/directory"}, "a directory that exists"),
        ({"cache_precision": "int3"}, "exact, int8, int4"),
    ],
)
def test_what_a_cache_cannot_be(options: dict[str, Any], match: str, tiny_model: Tiny) -> None:
    with pytest.raises(sdk.OptionError, match=match):
        sdk.load(tiny_model(), **options)


def test_a_window_that_the_model_is_too_short_for(tiny_model: Tiny) -> None:
    """Said when it is loaded, not when it is first asked."""
    with pytest.raises(sdk.InvalidInputError, match="at most 128"):
        sdk.load(tiny_model(), rolling=sdk.Rolling(4, 125))
