"""Answers in a given form: whatever the model wants, they parse and fit; what nothing can fit is told before."""

from __future__ import annotations

import json
import re
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sensorium import sdk
from sensorium.sdk.generation import Generation

from ..checkpoints import byte_llama

LEAVES = st.sampled_from(
    [
        {"type": "integer", "minimum": -20, "maximum": 300},
        {"type": "boolean"},
        {"type": "null"},
        {"type": "string", "maxLength": 5},
        {"enum": ["red", "grün", 7, None]},
        {"const": "x y"},
    ]
)


def objects(children: Any) -> Any:
    names = st.dictionaries(st.sampled_from(["a", "b b", "ç"]), children, min_size=1, max_size=3)
    return names.map(lambda fields: {"type": "object", "properties": fields, "required": sorted(fields)})


SCHEMAS = st.recursive(
    LEAVES,
    lambda children: objects(children) | children.map(lambda item: {"type": "array", "items": item, "maxItems": 2}),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> sdk.Model:
    """Random weights: it wants anything but JSON."""
    return sdk.load(byte_llama(tmp_path_factory.mktemp("checkpoint")), dtype="float32", device="cpu")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schema=SCHEMAS, seed=st.integers(0, 9))
def test_whatever_the_schema_the_answer_fulfils_it(model: sdk.Model, schema: dict[str, Any], seed: int) -> None:
    result = model.ask("Go on.", schema=schema, temperature=1.0, seed=seed, max_new_tokens=400)
    assert result.finish_reason == "stop"
    jsonschema.validate(json.loads(result.text), schema)


def test_objects_have_no_properties_but_those_that_are_listed(model: sdk.Model) -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "maximum": 9, "minimum": 0}}}
    found = [json.loads(model.ask("x", schema=schema, temperature=1.5, seed=seed).text) for seed in range(8)]
    assert all(set(value) <= {"n"} for value in found) and {} in found


@pytest.mark.parametrize(
    "options", [{}, {"temperature": 1.3, "seed": 4}, {"temperature": 1.3, "seed": 4, "best_of": 3}]
)
def test_choices_and_patterns(model: sdk.Model, options: dict[str, Any]) -> None:
    choices = ["yes", "no", "yes, but", "grün"]
    assert model.ask("x", choices=choices, **options).text in choices
    pattern = r"(19|20)\d\d-[a-f]{2,5}"
    assert re.fullmatch(pattern, model.ask("x", regex=pattern, **options).text)


def test_batches_and_streams_give_what_ask_gives(model: sdk.Model) -> None:
    options: dict[str, Any] = {"regex": r"[a-z]{3,9}!", "temperature": 1.0, "seed": 3}
    prompts = ["x", "another prompt", "q" * 50]
    alone = [model.ask(prompt, **options).text for prompt in prompts]
    assert [result.text for result in model.batch(prompts, **options)] == alone
    assert "".join(model.stream(prompts[1], **options)) == alone[1]
    assert len(set(alone)) > 1


def test_all_choices_are_open_to_a_model_that_draws(model: sdk.Model) -> None:
    """Their shares are those that the model gives their tokens: no choice is lost."""
    counts = {model.ask("x", choices=["b", "a", "c"], temperature=3.0, seed=seed).text for seed in range(40)}
    assert counts == {"a", "b", "c"}


def test_too_few_tokens_are_told(model: sdk.Model) -> None:
    result = model.ask("x", regex="[a-z]{30}", max_new_tokens=7)
    assert result.finish_reason == "length" and len(result.text) == 7


def test_logprobs_are_the_models_own(model: sdk.Model) -> None:
    result = model.ask("x", choices=["yes"], logprobs=1)
    assert result.logprobs is not None
    plain = torch.from_numpy(model.logits(model.encode("x"))[-1]).log_softmax(-1)
    np.testing.assert_allclose(result.logprobs[0].logprob, plain[result.tokens[0]].item(), atol=1e-4)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"schema": {"type": "nonsense"}}, "nonsense"),
        ({"schema": {"enum": []}}, "schema"),
        ({"schema": 3}, "a mapping, or a pydantic class"),
        ({"schema": {"const": float("nan")}}, "no JSON schema"),
        ({"regex": "(a"}, "regex"),
        ({"regex": r"a(?=b)"}, "look-around"),
        ({"regex": ""}, "regular expression"),
        ({"choices": []}, "one text or more"),
        ({"choices": ["a", ""]}, "one text or more"),
        ({"choices": [3]}, "one text or more"),
        ({"choices": ["a"], "regex": "a"}, "leave one"),
        ({"choices": ["a"], "beams": 2}, "beam search"),
    ],
)
def test_what_nothing_can_fit_is_told_before_anything_is_computed(
    model: sdk.Model, options: dict[str, Any], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Generation, "_decoded", lambda self: pytest.fail("computed"))
    with pytest.raises(sdk.OptionError, match=told):
        model.ask("x", **options)


def test_a_pydantic_class_is_a_schema(model: sdk.Model) -> None:
    pydantic = pytest.importorskip("pydantic", reason="comes with langchain")

    class Pet(pydantic.BaseModel):  # type: ignore[name-defined, misc]
        legs: int = pydantic.Field(ge=0, le=8)
        furry: bool

    text = model.ask("x", schema=Pet, temperature=1.0, seed=2).text
    assert 0 <= Pet.model_validate_json(text).legs <= 8


@pytest.mark.slow
def test_the_default_model_says_what_it_read_in_a_form(nano_file: object) -> None:
    schema = {
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": 20},
            "age": {"type": "integer", "minimum": 0, "maximum": 120},
        },
        "required": ["name", "age"],
    }
    model = sdk.load("nano", dtype="float32")
    asked = "Alice is 31 years old. Describe her as JSON."
    assert json.loads(model.ask(asked, schema=schema).text) == {"name": "Alice", "age": 31}
