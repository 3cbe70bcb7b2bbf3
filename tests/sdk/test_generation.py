"""The generation loop over scripted engines: rows, logprobs, best-of-n, limits, errors, timings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sensorium import sdk
from sensorium.sdk.beam import beam_search
from sensorium.sdk.generation import Generation, Piece
from sensorium.sdk.sampling import Penalties, Sampler, log_softmax
from sensorium.sdk.testing import FakeEngine, fake_model

V = 13
END = 12


def babbling(prompt: Sequence[int], answer: Sequence[int]) -> NDArray[np.float32]:
    """Logits that depend on every token so far, with an end that comes sooner or later."""
    random = np.random.default_rng([len(prompt), *prompt, 99, *answer])
    logits = random.normal(scale=2, size=V).astype(np.float32)
    logits[END] += 1
    return logits


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(babbling, vocabulary_size=V, context_length=40)


def run(engine: sdk.Engine, tokenizer: Any, prompts: list[list[int]], **options: Any) -> list[sdk.Result]:
    return Generation(engine, tokenizer, prompts, sdk.GenerationOptions(**options)).results()


PROMPTS = [[1, 2, 3], [4], [5, 6, 7, 8, 9, 10, 11], [1, 2], [4]]
WAYS: list[dict[str, Any]] = [
    {"max_new_tokens": 11},
    {"max_new_tokens": 9, "temperature": 1.1, "seed": 8, "top_p": 0.9},
    {"max_new_tokens": 9, "temperature": 1.5, "seed": 3, "best_of": 4},
    {"max_new_tokens": 10, "repetition_penalty": 1.4, "frequency_penalty": 0.3, "presence_penalty": 0.2},
    {"max_new_tokens": 12, "min_new_tokens": 6, "temperature": 0.9, "seed": 1, "logprobs": 2},
    {"max_new_tokens": 12, "stop": ("ab", "f"), "logprobs": 3},
]


@pytest.mark.parametrize("options", WAYS, ids=str)
def test_a_batch_is_its_prompts_one_by_one(engine: FakeEngine, letters: Any, options: dict[str, Any]) -> None:
    together = run(engine, letters(END), PROMPTS, **options)
    alone = [run(engine, letters(END), [prompt], **options)[0] for prompt in PROMPTS]
    for one, other in zip(together, alone, strict=True):
        same = ("text", "tokens", "finish_reason", "stop", "usage", "logprobs")
        assert [getattr(one, name) for name in same] == [getattr(other, name) for name in same]
    assert len({result.tokens for result in together}) >= 4  # the same prompt gives the same answer, others do not
    assert together[1] == together[4]
    if not options.get("best_of") and not options.get("stop"):
        assert len({result.usage.new_tokens for result in together}) > 1  # rows leave the batch at different times


def test_pieces_name_their_rows_and_tokens(engine: FakeEngine, letters: Any) -> None:
    generation = Generation(engine, letters(END), PROMPTS, sdk.GenerationOptions(max_new_tokens=11))
    pieces = list(generation)
    results = generation.finished()
    for row, result in enumerate(results):
        own = [piece for piece in pieces if piece.row == row]
        assert tuple(piece.token for piece in own if piece.token is not None) == result.tokens
        assert "".join(piece.text for piece in own) == result.text == letters().decode(result.tokens)
        assert (own[-1] == Piece(row, "", None)) == (result.finish_reason == "stop")
        assert len(own) == len(result.tokens) + (result.finish_reason == "stop")


def test_a_loop_that_was_left_goes_on_where_it_stopped(engine: FakeEngine, letters: Any) -> None:
    options = sdk.GenerationOptions(max_new_tokens=11)
    whole = Generation(engine, letters(END), PROMPTS, options).results()
    begun = Generation(engine, letters(END), PROMPTS, options)
    for number, _ in enumerate(begun):
        if number == 6:
            break
    with pytest.raises(sdk.EngineError, match="broken off"):
        begun.finished()
    assert [result.tokens for result in begun.results()] == [result.tokens for result in whole]


@pytest.mark.parametrize("count", [0, 1, 4, 13, 100])
def test_logprobs_are_the_model_s_own(engine: FakeEngine, letters: Any, count: int) -> None:
    options = {"temperature": 0.4, "seed": 5, "repetition_penalty": 2.0, "logit_bias": {3: -math.inf, 7: 4.0}}
    (result,) = run(engine, letters(END), [[4, 4, 2]], max_new_tokens=9, logprobs=count, **options)
    assert result.logprobs is not None and len(result.logprobs) == len(result.tokens) > 1
    for place, entry in enumerate(result.logprobs):
        logs = log_softmax(babbling([4, 4, 2], result.tokens[:place]))
        order = sorted(range(V), key=lambda token: -logs[token])[:count]
        assert entry.token == result.tokens[place] != 3
        assert entry.logprob == pytest.approx(logs[entry.token], abs=1e-12)
        assert [token for token, _ in entry.top] == order
        assert [log for _, log in entry.top] == pytest.approx(logs[order].tolist(), abs=1e-12)


def test_impossible_tokens_are_no_alternatives(letters: Any) -> None:
    engine = FakeEngine(lambda prompt, answer: [0.0, -np.inf, 1.0, -np.inf], vocabulary_size=4)
    (result,) = run(engine, letters(), [[0]], max_new_tokens=2, logprobs=4)
    assert result.logprobs is not None
    assert [token for token, _ in result.logprobs[0].top] == [2, 0]


def test_no_logprobs_unless_asked(engine: FakeEngine, letters: Any) -> None:
    assert run(engine, letters(END), [[1]], max_new_tokens=2)[0].logprobs is None
    assert run(engine, letters(END), [[1]], max_new_tokens=2, best_of=2, temperature=1.0)[0].logprobs is None


def drawn(options: sdk.GenerationOptions, prompt: list[int], number: int) -> tuple[tuple[int, ...], float]:
    """The `number`-th answer to a prompt, drawn here, and its mean log-probability with the end counted."""
    sampler, tokens, logs = Sampler(options, Penalties(options, prompt, {END}), number), [], []
    while len(tokens) < 6:
        logits = babbling(prompt, tokens)
        token = sampler.choose(logits, tokens)
        logs.append(log_softmax(logits)[token])
        if token == END:
            break
        tokens.append(token)
    return tuple(tokens), float(np.mean(logs))


@pytest.mark.parametrize("seed", [0, 11, 12])
def test_best_of_keeps_the_likeliest_of_its_draws(engine: FakeEngine, letters: Any, seed: int) -> None:
    options = sdk.GenerationOptions(max_new_tokens=6, temperature=1.6, seed=seed, best_of=7)
    for prompt, result in zip(
        [[2, 3], [9]], Generation(engine, letters(END), [[2, 3], [9]], options).results(), strict=True
    ):
        answers = [drawn(options, prompt, number) for number in range(7)]
        assert len({tokens for tokens, _ in answers}) > 3
        assert result.tokens == max(answers, key=lambda answer: answer[1])[0]


def test_an_empty_answer_is_not_the_best_for_being_empty(letters: Any) -> None:
    """Its end is unlikely: it must not count as certain for having no tokens."""

    def script(prompt: Sequence[int], answer: Sequence[int]) -> list[float]:
        return [6.0, 0.0, 5.0] if not answer else [0.0, 0.0, 9.0]

    engine = FakeEngine(script, vocabulary_size=3)
    for seed in range(5):
        options = {"temperature": 1.0, "seed": seed, "best_of": 8, "max_new_tokens": 5}
        assert run(engine, letters(2), [[1]], **options)[0].tokens == (0,)


def test_the_same_seed_gives_the_same_answer_and_another_another() -> None:
    def script(prompt: Sequence[int], answer: Sequence[int]) -> NDArray[np.float32]:
        return np.zeros(257, dtype=np.float32)

    model = sdk.Model(FakeEngine(script), fake_model("x").tokenizer, name="noise")  # type: ignore[arg-type]
    options: sdk.Options = {"temperature": 1.0, "max_new_tokens": 20}
    one = model.ask("a", seed=7, **options)
    assert model.ask("a", seed=7, **options).tokens == one.tokens
    assert [result.tokens for result in model.batch(["a", "b"], seed=7, **options)] == [one.tokens] * 2
    assert "".join(model.stream("a", seed=7, **options)) == one.text
    assert len({model.ask("a", seed=seed, **options).tokens for seed in (7, 8, None, None)}) == 4


def test_a_minimum_keeps_the_end_away(engine: FakeEngine, letters: Any) -> None:
    short = run(engine, letters(END), PROMPTS, max_new_tokens=12)
    assert min(len(result.tokens) for result in short) < 7
    longer = run(engine, letters(END), PROMPTS, max_new_tokens=12, min_new_tokens=7)
    assert min(len(result.tokens) for result in longer) >= 7
    assert all(
        len(result.tokens) == 12 for result in run(engine, letters(END), PROMPTS, min_new_tokens=12, max_new_tokens=12)
    )
    two = run(engine, letters(END), [[1, 2, 3]], stop_tokens=tuple(range(6)), min_new_tokens=3, max_new_tokens=12)
    assert all(token >= 6 for token in two[0].tokens[:3])


def test_the_context_bounds_prompt_and_answer_together(letters: Any) -> None:
    engine = FakeEngine([[1] * 90], vocabulary_size=V, context_length=40, end=END)
    assert len(run(engine, letters(END), [[1] * 30])[0].tokens) == 10  # what room there is
    assert len(run(engine, letters(END), [[1] * 30], max_new_tokens=10)[0].tokens) == 10
    assert len(run(engine, letters(END), [[1] * 39])[0].tokens) == 1
    assert len(run(engine, letters(END), [[1] * 30], default_new_tokens=7)[0].tokens) == 7
    assert len(run(engine, letters(END), [[1] * 30], default_new_tokens=700)[0].tokens) == 10
    assert len(run(engine, letters(END), [[1] * 30], default_new_tokens=3, min_new_tokens=5)[0].tokens) == 5


def start(engine: sdk.Engine, tokenizer: Any, prompt: list[int], options: sdk.GenerationOptions) -> Any:
    """Begins one way or the other."""
    if options.beams > 1:
        return beam_search(engine, tokenizer, prompt, options)
    return Generation(engine, tokenizer, [prompt, [1]], options)


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize(
    ("length", "options", "tokens", "way_out"),
    [
        (30, {"max_new_tokens": 11}, 41, "max_new_tokens=10"),
        (40, {}, 41, "shorten the prompt"),
        (41, {}, 41, "longer context"),
        (38, {"min_new_tokens": 3}, 41, "max_new_tokens=2"),
        (25, {"max_new_tokens": 10**9}, 10**9 + 25, "max_new_tokens=15"),
    ],
)
def test_what_does_not_fit_is_an_error_with_both_numbers(
    engine: FakeEngine, letters: Any, length: int, options: dict[str, Any], tokens: int, way_out: str, beams: int
) -> None:
    chosen = sdk.GenerationOptions(beams=beams, **options)
    with pytest.raises(sdk.ContextLengthError) as caught:
        start(engine, letters(END), [1] * length, chosen)
    assert (caught.value.tokens, caught.value.limit) == (tokens, 40)
    assert all(text in str(caught.value) for text in (str(tokens), "40", way_out))
    assert engine.prompts == []  # nothing was computed


@pytest.mark.parametrize("beams", [1, 2])
@pytest.mark.parametrize(
    ("options", "name"), [({"logit_bias": {2: 1.0, 13: -1.0}}, "logit_bias"), ({"stop_tokens": (3, 99)}, "stop_tokens")]
)
def test_tokens_that_the_model_does_not_have_are_named(
    engine: FakeEngine, letters: Any, options: dict[str, Any], name: str, beams: int
) -> None:
    chosen = sdk.GenerationOptions(beams=beams, **options)
    with pytest.raises(sdk.OptionError, match=f"{name}.*not in the vocabulary") as caught:
        start(engine, letters(END), [1], chosen)
    assert "0..12" in str(caught.value)


@pytest.mark.parametrize("prompt", [[], [13], [-1], [1.5], ["a"], 5, [[1, 2]], [2**70]])
def test_prompts_that_are_none_are_refused(engine: FakeEngine, letters: Any, prompt: Any) -> None:
    with pytest.raises(sdk.InvalidInputError):
        Generation(engine, letters(END), [[1], prompt], sdk.GenerationOptions())
    assert engine.prompts == []


def test_prompts_may_be_arrays(engine: FakeEngine, letters: Any) -> None:
    asked = [np.array([1, 2, 3], dtype=np.int32), (4,)]
    results = Generation(engine, letters(END), asked, sdk.GenerationOptions(max_new_tokens=5)).results()  # type: ignore[arg-type]
    assert [result.tokens for result in results] == [
        r.tokens for r in run(engine, letters(END), PROMPTS[:2], max_new_tokens=5)
    ]


@pytest.mark.parametrize("when", [0, 3])
@pytest.mark.parametrize("options", [{}, {"temperature": 1.0}, {"beams": 3}, {"temperature": 1.0, "best_of": 2}])
def test_logits_that_are_no_numbers_end_one_request_only(when: int, options: sdk.Options) -> None:
    broken = True

    def script(prompt: Sequence[int], answer: Sequence[int]) -> NDArray[np.float32]:
        logits = np.zeros(257, dtype=np.float32)
        logits[ord("a") + len(answer)] = 30
        if broken and len(answer) >= when:
            logits[5] = np.nan
        return logits

    model = sdk.Model(FakeEngine(script), fake_model("x").tokenizer, name="broken")  # type: ignore[arg-type]
    with pytest.raises(sdk.EngineError, match="not numbers"):
        model.ask("hi", max_new_tokens=6, **options)
    if "best_of" not in options and "beams" not in options:
        answer = model.stream("hi", max_new_tokens=6, **options)
        with pytest.raises(sdk.EngineError, match="not numbers"):
            list(answer)
        with pytest.raises(sdk.EngineError, match="broken off"):
            _ = answer.result
    broken = False
    assert model.ask("hi", max_new_tokens=6, **options).text == "abcdef"


def test_every_result_has_usage_and_timings(letters: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])

    def script(prompt: Sequence[int], answer: Sequence[int]) -> NDArray[np.float32]:
        now[0] += 2.0 if not answer else 0.25
        return np.eye(V, dtype=np.float32)[len(answer) % V] * 9

    engine = FakeEngine(script, vocabulary_size=V)
    for result in (
        run(engine, letters(4), [[7, 8]]),
        [beam_search(engine, letters(4), [7, 8], sdk.GenerationOptions(beams=2, max_new_tokens=6))],
    ):
        assert (result[0].usage.prompt_tokens, result[0].usage.new_tokens, result[0].usage.total_tokens) == (2, 4, 6)
    timings = run(engine, letters(4), [[7, 8]])[0].timings
    assert (timings.first_token, timings.total, timings.steps, timings.tokens_per_second) == (2.0, 3.0, 4, 4.0)
    generation = Generation(engine, letters(4), [[7, 8]], sdk.GenerationOptions())
    for _ in generation:
        pass
    now[0] += 1000  # a reader who comes late does not slow the model down
    assert generation.finished()[0].timings.total == 3.0
    assert sdk.Timings(1.0, 1.0, 0).tokens_per_second == 0.0


def test_a_result_is_plain_values() -> None:
    result = fake_model("ab").ask("hi", logprobs=1)
    found = result.to_dict()
    assert found["text"] == str(result) == "ab"
    assert found["tokens"] == [97, 98]
    assert found["usage"] == {"prompt_tokens": 19, "new_tokens": 2, "total_tokens": 21, "cached_tokens": 0}
    assert (found["finish_reason"], found["stop"]) == ("stop", 256)
    assert [entry["top"][0][0] for entry in found["logprobs"]] == [97, 98]
    assert set(found["timings"]) == {"first_token_seconds", "total_seconds", "tokens_per_second"}
    assert "logprobs" not in fake_model("ab").ask("hi").to_dict()
