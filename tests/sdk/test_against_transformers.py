"""Generation against `transformers` on tiny random models: greedy, penalties, beams, and a model's own defaults."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sensorium import sdk
from sensorium.fusion.checkpoints import load_decoder
from sensorium.sdk.beam import beam_search
from sensorium.sdk.generation import Generation
from sensorium.sdk.testing import FakeEngine
from sensorium.sdk.torch_engine import TorchEngine

V = 13
PROMPTS = [[1, 2, 3, 4, 5], [7], [3, 3, 9, 10, 0, 2, 8, 1, 1, 6, 5]]
Tiny = Callable[..., Path]


def original(folder: Path) -> Any:
    """`transformers`' model of a directory."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def theirs(model: Any, prompt: list[int], stops: list[int], **options: Any) -> list[int]:
    """What `transformers` answers, without the prompt."""
    chosen = {"do_sample": False, "pad_token_id": 0, "eos_token_id": stops or None, "max_new_tokens": 12} | options
    ids = torch.tensor([prompt])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), **chosen)[0, len(prompt) :].tolist()
    ends = [place for place, token in enumerate(out) if token in stops]
    return out[: ends[0]] if ends else out


@pytest.fixture(scope="module")
def pairs(tiny_model: Tiny) -> list[tuple[Any, TorchEngine]]:
    """Three models of 13 tokens: `transformers`' and ours."""
    folders = [tiny_model(V, seed=seed) for seed in (1, 2, 3)]
    return [(original(folder), TorchEngine(load_decoder(folder))) for folder in folders]


@pytest.mark.parametrize(
    ("ours", "others"),
    [
        ({}, {}),
        ({"repetition_penalty": 1.7}, {"repetition_penalty": 1.7}),
        ({"min_new_tokens": 6}, {"min_new_tokens": 6}),
        ({"max_new_tokens": 31}, {"max_new_tokens": 31}),
        ({"logit_bias": {2: -np.inf, 11: 2.5}}, {"sequence_bias": [[[2], -float("inf")], [[11], 2.5]]}),
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_greedy(pairs: Any, letters: Any, ours: dict[str, Any], others: dict[str, Any]) -> None:
    lengths = set()
    for model, engine in pairs:
        for stops in ([], [4], [0, 11]):
            options = sdk.GenerationOptions(**({"max_new_tokens": 12} | ours))
            results = Generation(engine, letters(*stops), PROMPTS, options).results()
            expected = [theirs(model, prompt, stops, **others) for prompt in PROMPTS]
            assert [list(result.tokens) for result in results] == expected
            lengths |= {len(tokens) for tokens in expected}
    assert len(lengths) > 1 or "max_new_tokens" in ours  # some answers ended by themselves


@pytest.mark.parametrize("beams", [2, 5])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, -1.5, 2.0])
def test_beam_search(pairs: Any, letters: Any, beams: int, length_penalty: float) -> None:
    different = 0
    for model, engine in pairs[:2]:
        for stops in ([], [4], [0, 11, 5]):
            for prompt in PROMPTS:
                shared = {"max_new_tokens": 9, "length_penalty": length_penalty}
                chosen = sdk.GenerationOptions(beams=beams, **shared)
                found = beam_search(engine, letters(*stops), prompt, chosen)
                expected = theirs(model, prompt, stops, num_beams=beams, early_stopping=False, **shared)
                assert list(found.tokens) == expected, (stops, prompt)
                assert (found.stop in stops) == (found.finish_reason == "stop")
                different += expected != theirs(model, prompt, stops, max_new_tokens=9)
    assert different >= 3  # or beams would have shown nothing


@pytest.mark.parametrize(
    ("ours", "others"),
    [
        ({"repetition_penalty": 1.6}, {"repetition_penalty": 1.6}),
        ({"min_new_tokens": 5}, {"min_new_tokens": 5}),
        ({"logit_bias": {3: -np.inf}}, {"sequence_bias": [[[3], -float("inf")]]}),
    ],
    ids=lambda options: "-".join(options),
)
def test_beam_search_with_penalties(pairs: Any, letters: Any, ours: dict[str, Any], others: dict[str, Any]) -> None:
    for model, engine in pairs:
        for prompt in PROMPTS:
            found = beam_search(engine, letters(4), prompt, sdk.GenerationOptions(beams=3, max_new_tokens=9, **ours))
            assert list(found.tokens) == theirs(model, prompt, [4], num_beams=3, max_new_tokens=9, **others)


def score(model: Any, prompt: list[int], tokens: list[int]) -> float:
    """The log-probability of tokens after a prompt."""
    with torch.inference_mode():
        logs = model(torch.tensor([prompt + tokens])).logits[0].log_softmax(-1)
    return sum(float(logs[len(prompt) - 1 + place, token]) for place, token in enumerate(tokens))


def test_as_many_beams_as_answers_find_the_likeliest_of_all(pairs: Any, letters: Any) -> None:
    model, engine = pairs[0]
    found = beam_search(engine, letters(), [1, 2], sdk.GenerationOptions(beams=V * V, max_new_tokens=3))
    every = [[a, b, c] for a in range(V) for b in range(V) for c in range(V)]
    with torch.inference_mode():
        logs = model(torch.tensor([[1, 2, *tokens] for tokens in every])).logits.log_softmax(-1)
    scores = sum(logs[torch.arange(len(every)), 1 + place, torch.tensor(every)[:, place]] for place in range(3))
    best = every[int(scores.argmax())]
    assert list(found.tokens) == best
    assert score(model, [1, 2], best) == pytest.approx(float(scores.max()), abs=1e-4)


@pytest.mark.parametrize("stop", [["e"], ["ab", "ce"], ["bb"]])
def test_beams_end_at_stop_texts(pairs: Any, letters: Any, stop: list[str]) -> None:
    for _, engine in pairs:
        options = sdk.GenerationOptions(beams=3, max_new_tokens=9, stop=tuple(stop))
        for prompt in PROMPTS:
            found = beam_search(engine, letters(4), prompt, options)
            assert not any(text in found.text for text in stop)
            whole = letters().decode(found.tokens)
            assert whole == found.text + (found.stop if isinstance(found.stop, str) else "")
            assert (found.finish_reason == "length") == (found.stop is None)


def test_a_stop_text_of_one_token_is_like_a_stop_token(pairs: Any, letters: Any) -> None:
    for _, engine in pairs:
        for prompt in PROMPTS:
            by_text = beam_search(
                engine, letters(), prompt, sdk.GenerationOptions(beams=3, max_new_tokens=9, stop=("e",))
            )
            by_token = beam_search(engine, letters(4), prompt, sdk.GenerationOptions(beams=3, max_new_tokens=9))
            assert (by_text.text, by_text.finish_reason) == (by_token.text, by_token.finish_reason)


@pytest.mark.parametrize(("probability", "ends_at_once"), [(0.20, False), (0.38, True)])
def test_an_end_counts_if_it_is_among_the_best_so_far(letters: Any, probability: float, ends_at_once: bool) -> None:
    """With two beams the third best candidate does not end an answer, though its final score would be the best."""

    def script(prompt: Any, answer: Any) -> Any:
        return np.log([0.39, 0.61 - probability, probability] if not answer else [0.5, 0.5, 1e-9])

    options = sdk.GenerationOptions(beams=2, max_new_tokens=4, length_penalty=-1.0)
    found = beam_search(FakeEngine(script, vocabulary_size=3), letters(2), [0], options)
    assert (found.tokens == ()) == ends_at_once == (found.finish_reason == "stop")


def test_forbidden_tokens_are_in_no_beam(pairs: Any, letters: Any) -> None:
    bias = dict.fromkeys(range(2, V), -np.inf)
    everything = sdk.GenerationOptions(beams=6, max_new_tokens=4, logit_bias=dict.fromkeys(range(V), -np.inf))
    for _, engine in pairs:
        found = beam_search(engine, letters(), [5], sdk.GenerationOptions(beams=6, max_new_tokens=4, logit_bias=bias))
        assert set(found.tokens) <= {0, 1} and len(found.tokens) == 4
        with pytest.raises(sdk.EngineError, match="forbidden"):
            beam_search(engine, letters(), [5], everything)


@pytest.mark.parametrize(
    "config",
    [
        {"repetition_penalty": 1.8, "max_new_tokens": 14},
        {"num_beams": 3, "length_penalty": 0.5, "max_new_tokens": 8},
        {"min_new_tokens": 10, "max_new_tokens": 11},
    ],
    ids=lambda config: "-".join(config),
)
def test_the_model_s_own_generation_config_is_applied(tiny_model: Tiny, tmp_path: Path, config: dict[str, Any]) -> None:
    folder = tiny_model()
    for file in folder.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [256, 77], **config}))
    ours = sdk.load(tmp_path, dtype="float32", device="cpu")
    assert ours.tokenizer.stop_ids == {256, 77}
    for text in ("What?", "one two three", "ö"):
        found = ours.ask(text, raw=True)
        assert list(found.tokens) == theirs(original(folder), list(ours.encode(text, raw=True)), [256, 77], **config)
    plain = sdk.load(folder, dtype="float32", device="cpu").ask("What?", raw=True, max_new_tokens=14)
    assert plain.tokens != ours.ask("What?", raw=True).tokens


def test_a_model_that_wants_beams_can_still_stream(tiny_model: Tiny) -> None:
    model = sdk.load(tiny_model(), dtype="float32", device="cpu")
    model.defaults = {"num_beams": 4}
    answer = model.stream("hi", raw=True, max_new_tokens=5)
    assert "".join(answer) == model.ask("hi", raw=True, beams=1, max_new_tokens=5).text
    with pytest.raises(sdk.OptionError, match="beams"):
        model.stream("hi", beams=4)


def test_a_saved_model_answers_the_same_here_and_there(tiny_model: Tiny, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    ours = sdk.load(tiny_model(), dtype="float32", device="cpu")
    ours.defaults = {"repetition_penalty": 1.3}
    ours.save(tmp_path / "new" / "place")
    back = sdk.load(tmp_path / "new" / "place", device="cpu")
    assert back.defaults == {"repetition_penalty": 1.3, "eos_token_id": [256]}
    assert back.ask("hello", max_new_tokens=12).tokens == ours.ask("hello", max_new_tokens=12).tokens
    prompt = list(ours.encode("hello"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "new" / "place")
    chat = [{"role": "user", "content": "hello"}]
    assert tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False) == prompt
    expected = theirs(
        original(tmp_path / "new" / "place"), prompt, [256]
    )  # with the repetition penalty from its generation_config.json
    assert list(back.ask("hello", max_new_tokens=12).tokens) == expected
