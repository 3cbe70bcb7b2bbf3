"""Options: what is refused, by which name, and what a model's generation_config.json adds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from sensorium import sdk
from sensorium.sdk.options import options_from

WRONG: list[tuple[str, Any]] = [
    *[("max_new_tokens", value) for value in (0, -1, True, 1.5, "9", math.nan, [3])],
    *[("min_new_tokens", value) for value in (-1, False, 2.0, "9")],
    *[("temperature", value) for value in (-0.1, math.nan, math.inf, True, "hot", [1], 10**400, 1j, np.ones(2))],
    *[("top_k", value) for value in (0, -1, True, 2.5)],
    *[("top_p", value) for value in (0, 1.01, -0.5, math.nan, False)],
    *[("min_p", value) for value in (-0.01, 1.5, math.nan)],
    *[("typical_p", value) for value in (0, 1.01, "1")],
    *[("repetition_penalty", value) for value in (0, -1, math.inf, None.__class__)],
    *[("presence_penalty", value) for value in (101, -101, math.nan)],
    *[("frequency_penalty", value) for value in (101, "2")],
    *[("seed", value) for value in (-1, 1.0, True)],
    *[("stop", value) for value in ("", ["a", ""], ["x"] * 65, ["y"] * 10**6, ["a", 5], b"ab", 7, "z" * 5000)],
    *[("stop_tokens", value) for value in (-1, [2, -3], True, "ab", [1.5], 2.5)],
    *[("logprobs", value) for value in (-1, 101, True, "5")],
    *[("best_of", value) for value in (0, 257, True, 10**9)],
    *[("beams", value) for value in (0, 257, True)],
    *[("length_penalty", value) for value in (11, -11, math.nan)],
    *[
        ("logit_bias", value)
        for value in ({"5": 1.0}, {-1: 1.0}, {3: math.nan}, {3: math.inf}, {3: "x"}, [3], {3: True})
    ],
]


@pytest.mark.parametrize(("name", "value"), WRONG, ids=[f"{name}-{number}" for number, (name, _) in enumerate(WRONG)])
def test_a_value_out_of_range_is_named(name: str, value: Any) -> None:
    given = {name: value} | ({"temperature": 0.5} if name in ("top_k", "top_p", "min_p", "typical_p") else {})
    with pytest.raises(sdk.OptionError) as caught:
        options_from(given, {})
    assert name in caught.value.problem
    assert len(str(caught.value)) < 600  # also of a million stop texts


def test_a_number_too_long_to_be_written_is_refused() -> None:
    with pytest.raises(sdk.OptionError, match="logprobs"):
        options_from({"logprobs": 10**5000}, {})


@pytest.mark.parametrize("name", ["max_tokens", "temprature", "topp", "stop_strings", "n", "default_new_tokens"])
def test_an_unknown_option_is_named(name: str) -> None:
    with pytest.raises(sdk.OptionError) as caught:
        options_from({name: None}, {})
    assert name in str(caught.value) and "repetition_penalty" in str(caught.value)


@pytest.mark.parametrize(("wrong", "right"), [("temprature", "temperature"), ("max_token", "max_new_tokens")])
def test_a_misspelt_option_is_guessed(wrong: str, right: str) -> None:
    with pytest.raises(sdk.OptionError, match=f"did you mean {right}"):
        options_from({wrong: 1}, {})


CONTRADICTIONS: list[tuple[dict[str, Any], list[str]]] = [
    ({"temperature": 0, "top_p": 0.9}, ["top_p", "temperature"]),
    ({"temperature": 0.0, "top_k": 5, "typical_p": 0.5}, ["top_k", "typical_p", "temperature"]),
    ({"best_of": 2}, ["best_of", "temperature"]),
    ({"best_of": 2, "temperature": 0}, ["best_of", "temperature"]),
    ({"beams": 2, "temperature": 0.5}, ["beams", "temperature"]),
    ({"beams": 2, "min_p": 0.5}, ["beams", "min_p"]),
    ({"beams": 2, "best_of": 3}, ["beams", "best_of"]),
    ({"beams": 3, "logprobs": 0}, ["beams", "logprobs"]),
    ({"length_penalty": 2.0}, ["length_penalty", "beams"]),
    ({"min_new_tokens": 5, "max_new_tokens": 4}, ["min_new_tokens 5", "max_new_tokens 4"]),
]


@pytest.mark.parametrize(("given", "named"), CONTRADICTIONS)
def test_contradictions_are_named(given: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(sdk.OptionError) as caught:
        options_from(given, {})
    assert all(name in str(caught.value) for name in named), str(caught.value)
    assert caught.value.hint


def test_an_option_made_directly_is_checked_too() -> None:
    with pytest.raises(sdk.OptionError, match="temperature"):
        sdk.GenerationOptions(temperature=None)  # type: ignore[arg-type]
    with pytest.raises(sdk.OptionError, match="stop"):
        sdk.GenerationOptions(stop="abc")  # type: ignore[arg-type]


def test_what_is_right_is_taken_as_it_is() -> None:
    found = options_from(
        {
            "max_new_tokens": np.int64(7),
            "min_new_tokens": 7,
            "temperature": np.float32(0.5),
            "top_k": 1,
            "top_p": 1,
            "min_p": 0,
            "typical_p": 0.2,
            "logit_bias": {3: -math.inf, np.int64(4): 2},
            "seed": 2**80,
            "stop": "ab",
            "stop_tokens": 5,
            "logprobs": 0,
            "best_of": 2,
            "presence_penalty": -100,
            "beams": None,
        },
        {},
    )
    assert (found.max_new_tokens, found.temperature, found.stop, found.stop_tokens) == (7, 0.5, ("ab",), (5,))
    assert (found.beams, found.logprobs, found.default_new_tokens) == (1, 0, 256)
    assert options_from({"stop": ["a", "b"], "stop_tokens": {4}}, {}).stop == ("a", "b")
    assert options_from({}, {}) == sdk.GenerationOptions()
    assert options_from({"stop": [], "stop_tokens": ()}, {}) == sdk.GenerationOptions()


CONFIG = {
    "do_sample": True,
    "temperature": 0.6,
    "top_k": 20,
    "top_p": 0.95,
    "typical_p": 1.0,
    "min_p": None,
    "repetition_penalty": 1.1,
    "max_new_tokens": 700,
    "min_new_tokens": 3,
    "num_beams": 1,
    "length_penalty": 1.0,
    "transformers_version": "5.0",
}


def test_the_models_own_config_holds_where_nothing_was_asked() -> None:
    found = options_from({}, CONFIG)
    assert (found.temperature, found.top_k, found.top_p, found.typical_p, found.min_p) == (0.6, 20, 0.95, None, None)
    assert (found.repetition_penalty, found.min_new_tokens) == (1.1, 3)
    assert (found.max_new_tokens, found.default_new_tokens) == (None, 700)  # fitted to the context, not demanded


def test_what_the_caller_asks_goes_before_the_config() -> None:
    found = options_from({"temperature": 0.9, "top_k": 5, "max_new_tokens": 2, "repetition_penalty": 1}, CONFIG)
    assert (found.temperature, found.top_k, found.top_p, found.repetition_penalty) == (0.9, 5, 0.95, 1)
    assert (found.max_new_tokens, found.min_new_tokens) == (2, 0)  # the config's three would contradict


def test_greedy_on_request_leaves_the_config_s_sampling_out() -> None:
    found = options_from({"temperature": 0}, CONFIG)
    assert found.greedy and found.top_k is found.top_p is None
    assert found.repetition_penalty == 1.1


@pytest.mark.parametrize("beams", [2, 5])
def test_beams_on_request_leave_the_config_s_sampling_out(beams: int) -> None:
    found = options_from({"beams": beams}, CONFIG)
    assert found.beams == beams and found.greedy and found.top_p is None
    assert options_from({"beams": 1}, CONFIG).temperature == 0.6


def test_to_ask_for_a_way_of_drawing_is_to_draw() -> None:
    assert options_from({"top_p": 0.5}, {}).temperature == 1.0
    assert options_from({"top_p": 0.5}, {"temperature": 0.3}).temperature == 0.3
    assert options_from({"min_p": 0.1}, {"temperature": 0.0}).temperature == 1.0
    assert options_from({}, {"temperature": 0.3, "top_k": 9}).greedy  # without do_sample
    assert options_from({"temperature": 2}, {"temperature": 0.3, "top_k": 9}).top_k == 9


def test_the_config_s_beams_give_way() -> None:
    config = {"num_beams": 4, "length_penalty": 0.5}
    assert (options_from({}, config).beams, options_from({}, config).length_penalty) == (4, 0.5)
    for asked in ({"logprobs": 1}, {"temperature": 1.0, "best_of": 2}, {"top_k": 3}, {"beams": 1}):
        found = options_from(asked, config)
        assert (found.beams, found.length_penalty) == (1, 1.0), asked
    assert options_from({}, {"do_sample": True, **config}).beams == 1
    assert options_from({"beams": 2}, config).length_penalty == 0.5


@pytest.mark.parametrize(
    "config",
    [
        {"top_k": 0, "top_p": 1.0, "num_beams": None, "temperature": None, "do_sample": True},
        {"top_k": -1, "min_p": 0.0, "do_sample": True},
        {"do_sample": True, "max_new_tokens": None},
    ],
)
def test_empty_and_neutral_fields_are_off(config: dict[str, Any]) -> None:
    assert options_from({}, config) == sdk.GenerationOptions(temperature=1.0)


@pytest.mark.parametrize(
    ("field", "value", "way_out"),
    [
        ("temperature", "hot", {"temperature": 1}),
        ("temperature", -1.0, {"temperature": 1}),
        ("top_p", 2.0, {"top_p": 0.5}),
        ("top_k", [5], {"top_k": 5}),
        ("repetition_penalty", 0, {"repetition_penalty": 1}),
        ("max_new_tokens", True, {"max_new_tokens": 4}),
        ("min_new_tokens", "x", {"min_new_tokens": 1}),
    ],
)
def test_a_damaged_config_is_named_and_can_be_overruled(field: str, value: Any, way_out: dict[str, Any]) -> None:
    config = {"do_sample": True, field: value}
    with pytest.raises(sdk.OptionError, match=rf"generation_config\.json has a wrong {field}"):
        options_from({}, config)
    assert options_from(way_out, config)
    for name in ("num_beams", "length_penalty"):
        with pytest.raises(sdk.OptionError, match=name):
            options_from({"beams": 2} if name == "length_penalty" else {}, {name: "many"})
