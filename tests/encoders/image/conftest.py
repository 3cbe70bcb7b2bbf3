"""Photos and small random models that the image tests share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from skimage import data
from torch import Tensor
from torch.overrides import TorchFunctionMode

# All sizes differ, so that swapped axes fail.
TOWER: dict[str, Any] = {
    "hidden_size": 24,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "image_size": 35,
    "patch_size": 5,
}
NAFLEX: dict[str, Any] = {name: value for name, value in TOWER.items() if name != "image_size"} | {"num_patches": 49}
TEXT: dict[str, Any] = {
    "hidden_size": 12,
    "num_attention_heads": 2,
    "intermediate_size": 20,
    "num_hidden_layers": 1,
    "vocab_size": 31,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def _idefics3() -> Any:
    from transformers.models.idefics3.configuration_idefics3 import Idefics3VisionConfig
    from transformers.models.idefics3.modeling_idefics3 import Idefics3VisionTransformer

    return Idefics3VisionTransformer(Idefics3VisionConfig(**TOWER))


def _smolvlm() -> Any:
    from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig
    from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionTransformer

    return SmolVLMVisionTransformer(SmolVLMVisionConfig(**TOWER))


MODELS: dict[str, Callable[[], Any]] = {
    "vit": lambda: transformers.ViTModel(transformers.ViTConfig(**TOWER, pooler_output_size=17)),
    "vit-classifier": lambda: transformers.ViTForImageClassification(
        transformers.ViTConfig(**TOWER, num_labels=7, qkv_bias=False)
    ),
    "clip-vision": lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**TOWER)),
    "clip-projection": lambda: transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(**TOWER, projection_dim=11)
    ),
    "clip": lambda: transformers.CLIPModel(
        transformers.CLIPConfig(text_config=TEXT, vision_config=TOWER, projection_dim=11)
    ),
    "siglip-vision": lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**TOWER)),
    "siglip-headless": lambda: transformers.SiglipVisionModel(
        transformers.SiglipVisionConfig(**TOWER, vision_use_head=False)
    ),
    "siglip": lambda: transformers.SiglipModel(transformers.SiglipConfig(text_config=TEXT, vision_config=TOWER)),
    "naflex-vision": lambda: transformers.Siglip2VisionModel(transformers.Siglip2VisionConfig(**NAFLEX)),
    "naflex": lambda: transformers.Siglip2Model(transformers.Siglip2Config(text_config=TEXT, vision_config=NAFLEX)),
    "idefics3": _idefics3,
    "smolvlm": _smolvlm,
}


class AllDoubles(TorchFunctionMode):
    """Lets transformers compute in float64 where its code asks for float32, of whole numbers too."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is Tensor.float:
            return args[0].double()
        if kwargs.get("dtype") == torch.float32:
            kwargs["dtype"] = torch.float64
        return func(*args, **kwargs)


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    """A random model of `transformers` in float64, and the directory that it was saved to in float32."""
    made: dict[str, tuple[Any, Path]] = {}

    def make(name: str) -> tuple[Any, Path]:
        if name not in made:
            torch.manual_seed(3)
            model = MODELS[name]().eval().requires_grad_(False)
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
            folder = tmp_path_factory.mktemp(name)
            model.save_pretrained(folder)
            made[name] = (model, folder)
        return made[name]

    return make


@pytest.fixture(scope="session")
def photos() -> dict[str, NDArray[np.uint8]]:
    """Real photos and one of noise, of different sizes and shapes, uint8 [H, W, 3]."""
    noise = np.random.default_rng(0).integers(0, 256, (61, 47, 3), dtype=np.uint8)
    found = {name: getattr(data, name)() for name in ("coffee", "chelsea", "astronaut", "rocket")}
    return found | {"noise": noise, "tall": np.ascontiguousarray(found["rocket"].transpose(1, 0, 2))}
