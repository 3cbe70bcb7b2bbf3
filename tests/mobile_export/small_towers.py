"""Small random checkpoints of `transformers` that read pictures with a vision tower; all sizes differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tokenizers import AddedToken
from transformers.models.smolvlm import processing_smolvlm

from ..fusion.multimodal.conftest import TEXT, TOWER, tokenizer
from ..fusion.multimodal.hearing import model_of
from ..fusion.multimodal.native import qwen2_vl_model

__all__ = ["small_gemma3", "small_idefics3", "small_listener", "small_llava", "small_llava_next", "small_qwen2_vl"]

_CLIP = {"size": {"shortest_edge": 35}, "crop_size": {"height": 35, "width": 35}}
_LLAVA: dict[str, tuple[str, str, tuple[str, dict[str, Any]], dict[str, Any]]] = {
    "clip": ("Llama", "CLIP", ("CLIP", _CLIP), {}),
    "padded": ("Llama", "CLIP", ("Llava", _CLIP | {"do_pad": True, "resample": 2}), {"vision_feature_layer": [-1, 1]}),
    "siglip": (
        "Qwen2",
        "Siglip",
        ("Siglip", {"size": {"height": 40, "width": 30}}),
        {"vision_feature_select_strategy": "full", "multimodal_projector_bias": False},
    ),
}
_TILES = [f"<row_{row}_col_{column}>" for row in (1, 2, 3) for column in (1, 2, 3)]
_NAMES = ["<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<image>", "<global-img>", *_TILES]
_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}: {% for line in message['content'] %}"
    "{% if line['type'] == 'text' %}{{line['text']}}{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def small_llava(folder: Path, case: str) -> Path:
    """LLaVA 1.5: a CLIP that crops, one whose pictures are made square first, or a SigLIP of another shape."""
    decoder, vision, (processing, steps), fields = _LLAVA[case]
    words = tokenizer(AddedToken("<image>", special=True, normalized=False))
    config = transformers.LlavaConfig(
        vision_config=getattr(transformers, f"{vision}VisionConfig")(**TOWER),
        text_config=getattr(transformers, f"{decoder}Config")(**TEXT),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        **fields,
    )
    images = getattr(transformers, f"{processing}ImageProcessor")(**steps)
    extra = {"num_additional_image_tokens": int(vision == "CLIP"), "chat_template": words.chat_template}
    strategy = config.vision_feature_select_strategy
    processor = transformers.LlavaProcessor(
        images, words, patch_size=5, vision_feature_select_strategy=strategy, **extra
    )
    return _saved(folder, transformers.LlavaForConditionalGeneration(config), processor)


def small_llava_next(folder: Path) -> Path:
    """LLaVA-NeXT with tiles of 35 pixels, the whole of 39 before it is cropped."""
    words = tokenizer(AddedToken("<image>", special=True, normalized=False))
    config = transformers.LlavaNextConfig(
        vision_config=transformers.CLIPVisionConfig(**TOWER),
        text_config=transformers.MistralConfig(**TEXT),
        image_token_index=words.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=(grid := [[35, 70], [70, 35], [70, 70], [105, 35], [35, 105]]),
    )
    images = transformers.LlavaNextImageProcessor(
        size={"shortest_edge": 39}, crop_size={"height": 35, "width": 35}, image_grid_pinpoints=grid
    )
    processor = transformers.LlavaNextProcessor(
        images,
        words,
        patch_size=5,
        vision_feature_select_strategy=config.vision_feature_select_strategy,
        num_additional_image_tokens=1,
        chat_template=words.chat_template,
    )
    return _saved(folder, transformers.LlavaNextForConditionalGeneration(config), processor)


def small_idefics3(
    folder: Path, *, kind: str = "Idefics3", longest: int = 90, factor: int = 3, cuts: bool = True
) -> Path:
    """Idefics3 or SmolVLM with tiles of 30 pixels, pictures of `longest` along their longer side."""
    words = tokenizer(*(AddedToken(name, special=True, normalized=False) for name in _NAMES), template=_TEMPLATE)
    config = getattr(transformers, f"{kind}Config")(
        vision_config=TOWER | {"image_size": 30},
        text_config=transformers.LlamaConfig(**TEXT),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=factor,
    )
    sizes = {"size": {"longest_edge": longest}, "max_image_size": {"longest_edge": 30}}
    parts = [getattr(transformers, f"{kind}ImageProcessor")(**sizes, do_image_splitting=cuts), words]
    if kind == "SmolVLM":
        parts.append(transformers.SmolVLMVideoProcessor(**sizes))
    slots = (6 // factor) ** 2
    with pytest.MonkeyPatch.context() as patch:
        # Its class asks for a package that spells numbers, of which nothing here has need.
        patch.setattr(processing_smolvlm, "num2words", str)
        processor = getattr(transformers, f"{kind}Processor")(*parts, image_seq_len=slots, chat_template=_TEMPLATE)
    return _saved(folder, getattr(transformers, f"{kind}ForConditionalGeneration")(config), processor)


def small_gemma3(folder: Path, *, pieces: bool = False, side: int = 35, slots: int = 9, tied: bool = True) -> Path:
    """Gemma 3, whose decoder reads the places of a picture both ways.

    Args:
        folder: that it is saved to.
        pieces: of elongated pictures, too.
        side: of a picture, in pixels.
        slots: places of a picture.
        tied: its head is its embedding table; if not, its answers repeat fewer tokens.
    """
    roles = {"boi_token": "<start_of_image>", "image_token": "<image_soft_token>", "eoi_token": "<end_of_image>"}
    named = [AddedToken(name, special=True, normalized=False) for name in roles.values()]
    template = _TEMPLATE.replace("<image>", "<start_of_image>")
    words = tokenizer(*named, AddedToken("<|im_start|>", special=True), template=template, roles=roles)
    numbers = {f"{name}_index": words.convert_tokens_to_ids(token) for name, token in roles.items()}
    config = transformers.Gemma3Config(
        vision_config=transformers.SiglipVisionConfig(**TOWER | {"image_size": side}),
        text_config=transformers.Gemma3TextConfig(
            **TEXT,
            tie_word_embeddings=tied,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            sliding_window=5,
        ),
        image_token_index=numbers["image_token_index"],
        boi_token_index=numbers["boi_token_index"],
        eoi_token_index=numbers["eoi_token_index"],
        mm_tokens_per_image=slots,
        tie_word_embeddings=tied,
    )
    cutting = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 30, "pan_and_scan_max_num_crops": 3}
    images = transformers.Gemma3ImageProcessor(size={"height": side, "width": side}, **cutting if pieces else {})
    processor = transformers.Gemma3Processor(images, words, template, image_seq_length=slots)
    images.do_pan_and_scan = pieces  # the whole takes for granted that it is off
    return _saved(folder, transformers.Gemma3ForConditionalGeneration(config), processor)


def small_qwen2_vl(folder: Path, case: str) -> Path:
    """Qwen2-VL, whose tower reads pictures in their own shape and whose decoder's positions have three axes."""
    return _saved(folder, *qwen2_vl_model(case, tokenizer, TEXT))


def small_listener(folder: Path, case: str) -> Path:
    """Ultravox, Qwen2-Audio or Voxtral with a tower of two seconds."""
    return _saved(folder, *model_of(case, tokenizer, TEXT))


def _saved(folder: Path, model: Any, processor: Any) -> Path:
    model = model.eval().requires_grad_(False)
    torch.manual_seed(11)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder.mkdir(exist_ok=True)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
