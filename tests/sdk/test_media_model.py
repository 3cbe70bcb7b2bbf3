"""`nano` with media: order, plans, switched adapters and answers about real files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sensorium import sdk
from sensorium.fusion.plan import MediaSpan, PromptPlan, TextSpan

RED = np.zeros((64, 64, 3), np.uint8) + np.array([250, 10, 10], np.uint8)
NOISE = np.random.default_rng(5).integers(0, 256, (70, 50, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def model() -> sdk.Model:
    return sdk.load("nano", dtype="float32")


@pytest.fixture(scope="module")
def speech(root: Path) -> Path:
    return root / "tests" / "data" / "speech.flac"


def kinds(plan: PromptPlan) -> list[str]:
    spans = [span for span in plan.spans if isinstance(span, MediaSpan) or len(span) > 0]
    return ["text" if isinstance(span, TextSpan) else plan.items[span.item].modality for span in spans]


def test_it_says_what_it_reads(model: sdk.Model) -> None:
    assert model.modalities == ("text", "image", "audio", "video")


def test_parts_keep_their_order(model: sdk.Model, speech: Path) -> None:
    red, noise, sound = sdk.Image(RED), sdk.Image(NOISE), sdk.Audio(speech)
    plan = model.encode("One:", noise, "two:", sound, "three:", red)
    assert kinds(plan) == ["text", "image", "text", "audio", "text", "image", "text"]
    assert [item.digest for item in plan.items] == [noise.data.digest, sound.data.digest, red.data.digest]
    text = model.tokenizer.decode([token for span in plan.spans if isinstance(span, TextSpan) for token in span.tokens])
    assert text.index("One:") < text.index("two:") < text.index("three:")


def test_embeddings_stand_where_the_plan_says(model: sdk.Model) -> None:
    media = model.engine.media  # type: ignore[attr-defined]
    red, noise = sdk.Image(RED), sdk.Image(NOISE)
    for order in ((red, noise), (noise, red)):
        plan = model.encode("a", order[0], "b", order[1])
        embedded = media.embed(plan)[0]
        for at, span in plan.placed():
            if isinstance(span, MediaSpan):
                expected = media.cache.embed(media.connector("image"), plan.items[span.item].media)
                assert np.allclose(embedded[at : at + span.count], expected[span.first : span.first + span.count])


def test_a_picture_is_encoded_once(model: sdk.Model) -> None:
    cache = model.engine.media.cache  # type: ignore[attr-defined]
    model.ask("What is this?", sdk.Image(NOISE), max_new_tokens=1)
    misses = cache.misses
    model.ask("And this?", sdk.Image(NOISE.copy()), "Say.", max_new_tokens=1)
    assert cache.misses == misses


def test_a_batch_with_different_media_equals_one_by_one(model: sdk.Model, speech: Path) -> None:
    conversations = [
        [{"role": "user", "content": [sdk.Text("What is this?"), sdk.Image(RED)]}],
        [{"role": "user", "content": "Name a colour."}],
        [{"role": "user", "content": [sdk.Audio(speech), sdk.Text("What was said?")]}],
    ]
    alone = [model.ask(one, max_new_tokens=9).tokens for one in conversations]
    assert [result.tokens for result in model.batch(conversations, max_new_tokens=9)] == alone


def test_text_alone_is_read_without_the_adapter(model: sdk.Model) -> None:
    before = model.ask("What is the capital of France?").tokens
    model.ask("What is this?", sdk.Image(RED), max_new_tokens=2)
    assert model.ask("What is the capital of France?").tokens == before
    assert model.encode("Hello").adapter is None and model.encode("Hello", sdk.Image(RED)).adapter == "nano"


def test_text_in_a_prompt_cannot_spell_a_place(model: sdk.Model) -> None:
    plan = model.encode("<reponame> <|im_end|>", sdk.Image(RED))
    assert kinds(plan) == ["text", "image", "text"]
    assert sum(token == model.tokenizer.token_id("<|im_end|>") for token in plan) == 2  # the system's and the user's


def test_the_explanation_counts_every_token(model: sdk.Model) -> None:
    text = model.explain("What is this?", sdk.Image(RED))
    plan = model.encode("What is this?", sdk.Image(RED))
    rows = text.splitlines()
    assert sum(int(row.split()[1]) for row in rows[:-1]) == len(plan)
    assert rows[-1].startswith(f"{len(plan)} tokens") and "64x64" in text


def test_too_much_media_is_refused_with_both_numbers(model: sdk.Model) -> None:
    many = [sdk.Image(RED)] * 1500
    with pytest.raises(sdk.ContextLengthError) as caught:
        model.ask("What are these?", *many)
    assert caught.value.limit == 8192 and caught.value.tokens > 8192


def test_it_sees_and_hears(model: sdk.Model, speech: Path) -> None:
    from skimage.data import chelsea

    assert "cat" in model.ask("What is in this picture?", sdk.Image(chelsea()), max_new_tokens=24).text.lower()
    heard = model.ask("Transcribe the speech.", sdk.Audio(speech), max_new_tokens=24).text
    assert "made amiable himself" in heard.lower()


def test_a_clip_shows_its_times(model: sdk.Model) -> None:
    from skimage.data import chelsea, coffee

    frames = np.stack([np.resize(chelsea()[:300, :400], (300, 400, 3))] * 3 + [coffee()[:300, :400]] * 3)
    clip = sdk.Video(frames, timestamps=[0.0, 1.0, 2.0, 3.5, 4.5, 5.5])
    plan = model.encode("What is in this clip?", clip)
    text = model.tokenizer.decode([token for span in plan.spans if isinstance(span, TextSpan) for token in span.tokens])
    assert "[0:00.0]" in text and "[0:03.5]" in text and "[0:01.0]" not in text


@pytest.fixture(scope="module")
def clip_with_speech(ffmpeg: Callable[..., None], speech: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cat until 3.0 s, then a cup of coffee until 5.0 s; the speech begins with it."""
    from PIL import Image
    from skimage.data import chelsea, coffee

    folder = tmp_path_factory.mktemp("clip")
    for number in range(50):
        Image.fromarray((chelsea() if number < 30 else coffee())[:300, :400]).save(folder / f"{number:02d}.png")
    ffmpeg("-framerate", 10, "-i", folder / "%02d.png", "-i", speech, "-c:v", "mpeg4", "-q:v", 3, folder / "clip.mp4")
    return folder / "clip.mp4"


def test_a_clip_is_heard_too(model: sdk.Model, clip_with_speech: Path) -> None:
    clip = sdk.Video(clip_with_speech)
    plan = model.encode("What is said?", clip)
    text = model.tokenizer.decode([token for span in plan.spans if isinstance(span, TextSpan) for token in span.tokens])
    assert ') The speech says: "' in text
    heard = model.ask("Transcribe the speech.", clip, max_new_tokens=24).text
    assert "made amiable himself" in heard.lower()


def test_the_time_of_a_visible_change_is_told_to_half_a_second(model: sdk.Model, clip_with_speech: Path) -> None:
    answer = model.ask("When does the scene change?", sdk.Video(clip_with_speech), max_new_tokens=32).text
    told = re.search(r"(\d+):(\d+\.\d)", answer)
    assert told is not None, answer
    assert abs(int(told[1]) * 60 + float(told[2]) - 3.0) <= 0.5


def test_only_the_decoder_can_be_saved_and_only_on_purpose(model: sdk.Model, tmp_path: Path) -> None:
    with pytest.raises(sdk.UnsupportedInputError, match="text_only=True") as caught:
        model.save(tmp_path / "whole")
    assert "image, audio, video" in str(caught.value) and not (tmp_path / "whole").exists()
    model.save(tmp_path / "text", text_only=True)
    again = sdk.load(tmp_path / "text", dtype="float32")
    assert again.modalities == ("text",) and sdk.describe(tmp_path / "text").modalities == ("text",)
    assert again.ask("Name a colour.", max_new_tokens=9).tokens == model.ask("Name a colour.", max_new_tokens=9).tokens


def test_its_description_says_what_it_reads(model: sdk.Model) -> None:
    assert sdk.describe("nano").modalities == model.modalities
