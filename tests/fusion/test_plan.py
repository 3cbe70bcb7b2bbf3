"""The plan of a prompt: order, counts, keys and what it tells people."""

from __future__ import annotations

import numpy as np
import pytest
from sensorium import sdk
from sensorium.encoders.media import AudioData, ImageData, VideoData
from sensorium.fusion.plan import MediaItem, MediaSpan, PromptPlan, TextSpan, plan_prompt

RNG = np.random.default_rng(3)
PICTURE = ImageData(RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8))
OTHER = ImageData(RNG.integers(0, 256, (7, 5, 3), dtype=np.uint8))
SOUND = AudioData(RNG.standard_normal(4800).astype(np.float32))
CLIP = VideoData(RNG.integers(0, 256, (2, 3, 4, 3), dtype=np.uint8), np.array([0.0, 0.5]), 1.5)
HOLDERS = {"image": 90, "audio": 91, "video": 92}


def items(*media: ImageData | AudioData | VideoData, slots: tuple[int, ...]) -> list[MediaItem]:
    return [MediaItem(one, count) for one, count in zip(media, slots, strict=True)]


def test_text_and_media_keep_their_order() -> None:
    plan = plan_prompt([1, 2, 91, 91, 91, 3, 90, 90, 4], items(SOUND, PICTURE, slots=(3, 2)), HOLDERS)
    assert plan.spans == (
        TextSpan((1, 2)),
        MediaSpan(0, 0, 3, 91),
        TextSpan((3,)),
        MediaSpan(1, 0, 2, 90),
        TextSpan((4,)),
    )
    assert list(plan) == [1, 2, 91, 91, 91, 3, 90, 90, 4] and len(plan) == 9 and plan[2:4] == (91, 91)
    assert [at for at, _ in plan.placed()] == [0, 2, 5, 6, 8]


def test_neighbours_of_one_kind_are_told_apart() -> None:
    plan = plan_prompt([90, 90, 90, 90, 90], items(PICTURE, OTHER, slots=(2, 3)), HOLDERS)
    assert plan.spans == (MediaSpan(0, 0, 2, 90), MediaSpan(1, 0, 3, 90))


def test_an_item_may_be_cut_by_markers() -> None:
    plan = plan_prompt([5, 92, 92, 6, 92, 7], items(CLIP, slots=(3,)), HOLDERS)
    assert plan.spans[1] == MediaSpan(0, 0, 2, 92) and plan.spans[3] == MediaSpan(0, 2, 1, 92)


def test_an_item_without_slots_is_allowed_anywhere() -> None:
    plan = plan_prompt([1, 90, 2], items(SOUND, PICTURE, SOUND, slots=(0, 1, 0)), HOLDERS)
    assert plan.spans[1] == MediaSpan(1, 0, 1, 90)


@pytest.mark.parametrize(
    ("tokens", "slots", "numbers"),
    [([90, 90, 90], (2,), "2 placeholders"), ([90], (2,), "1 placeholders"), ([], (2,), "0 placeholders")],
)
def test_a_wrong_count_says_both_numbers(tokens: list[int], slots: tuple[int, ...], numbers: str) -> None:
    with pytest.raises(sdk.InvalidInputError, match="do not match") as caught:
        plan_prompt(tokens, items(PICTURE, slots=slots), HOLDERS)
    assert numbers in str(caught.value) and "image: 2" in str(caught.value)


def test_the_wrong_kind_at_a_place_is_refused() -> None:
    with pytest.raises(sdk.InvalidInputError, match="do not match"):
        plan_prompt([91, 90], items(PICTURE, SOUND, slots=(1, 1)), HOLDERS)


def test_keys_tell_contents_apart_and_share_prefixes() -> None:
    one, two, three = (
        plan_prompt([1, 90, 90, 2], items(media, slots=(2,)), HOLDERS).keys()
        for media in (PICTURE, OTHER, ImageData(PICTURE.pixels.copy()))
    )
    assert one == three and one[0] == two[0] and one[1:3] != two[1:3] and one[3] == two[3]
    assert len(set(one)) == 4


def test_the_same_pixels_in_another_shape_are_another_content() -> None:
    assert ImageData(PICTURE.pixels.reshape(7, 5, 3)).digest != PICTURE.digest
    assert VideoData(CLIP.frames, CLIP.timestamps + 0.1, 1.5).digest != CLIP.digest
    assert VideoData(CLIP.frames, CLIP.timestamps, 1.5, SOUND).digest != CLIP.digest


def test_the_explanation_names_every_span() -> None:
    named = [MediaItem(PICTURE, 2, "a.jpg"), *items(CLIP, slots=(1,))]
    plan = plan_prompt([1, 90, 90, 2, 92], named, HOLDERS, adapter="nano")
    text = plan.explain(lambda tokens: "".join(chr(64 + token) for token in tokens))
    rows = text.splitlines()
    assert rows[0].split() == ["0", "1", "text", "'A'"]
    assert rows[1].split()[:5] == ["1", "2", "image", "7x5", "a.jpg,"] and PICTURE.digest[:12] in rows[1]
    assert "2 frames of 1.5 s" in rows[3]
    assert rows[-1] == "5 tokens: 2 of text, 3 of 2 media items; adapter nano"


def test_an_empty_plan_is_one() -> None:
    assert list(PromptPlan(())) == []
