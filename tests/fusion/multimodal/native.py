"""Small random Qwen2-VLs, for several tests: each case is built by `transformers`' own classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import transformers
from tokenizers import AddedToken

__all__ = ["CASES", "VISION", "qwen2_vl_model"]

# As the published checkpoints write it, without what they say of themselves at the beginning.
_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif content['type'] == 'video' %}<|vision_start|><|video_pad|>"
    "<|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_NAMES = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
VISION: dict[str, Any] = {
    "depth": 3,
    "embed_dim": 24,
    "num_heads": 3,
    "mlp_ratio": 2,
    "patch_size": 5,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
}
_BUDGETS = {"image": (400, 9000), "video": (300, 2500)}
# Sections of the rotary embedding, fields of the tower and of the text.
CASES: dict[str, tuple[list[int], dict[str, Any], dict[str, Any]]] = {
    "pairs": ([1, 2, 2], {}, {}),
    "thirds": ([2, 1, 2], {"spatial_merge_size": 3, "temporal_patch_size": 3, "hidden_act": "gelu"}, {}),
    "single": ([3, 2, 0], {"spatial_merge_size": 1, "temporal_patch_size": 1}, {"tie_word_embeddings": True}),
    "fused": ([2, 3, 3], {}, {"hidden_size": 48}),
    "sliding": ([1, 1, 3], {}, {"use_sliding_window": True, "sliding_window": 23, "max_window_layers": 1}),
}


def qwen2_vl_model(case: str, tokenizer: Callable[..., Any], text: Mapping[str, Any]) -> tuple[Any, Any]:
    """A case's model and its processor.

    Args:
        case: one of `CASES`.
        tokenizer: builds one from more tokens and a template.
        text: sizes of the decoder.
    """
    sections, vision, fields = CASES[case]
    words = tokenizer(*[AddedToken(name, special=True, normalized=False) for name in _NAMES], template=_TEMPLATE)
    ids = {f"{kind}_token_id": words.convert_tokens_to_ids(f"<|{kind}_pad|>") for kind in ("image", "video")}
    size = {name: value for name, value in text.items() if name != "head_dim"} | {"num_attention_heads": 3}
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections}
    tower = VISION | vision
    config = transformers.Qwen2VLConfig(
        vision_config=tower | {"hidden_size": (size | fields)["hidden_size"]},
        text_config=size | {"num_key_value_heads": 1, "rope_parameters": rope} | fields,
        **ids,
        **({"tie_word_embeddings": True} if "tie_word_embeddings" in fields else {}),
    )
    units = {"patch_size": tower["patch_size"], "merge_size": tower["spatial_merge_size"]}
    units["temporal_patch_size"] = tower["temporal_patch_size"]
    steps = {
        kind: {"size": dict(zip(("shortest_edge", "longest_edge"), _BUDGETS[kind], strict=True))} | units
        for kind in _BUDGETS
    }
    processor = transformers.Qwen2VLProcessor(
        transformers.Qwen2VLImageProcessor(**steps["image"]),
        words,
        transformers.Qwen2VLVideoProcessor(**steps["video"], cap_pixels_per_frame=False),
        chat_template=_TEMPLATE,
    )
    return transformers.Qwen2VLForConditionalGeneration(config), processor
