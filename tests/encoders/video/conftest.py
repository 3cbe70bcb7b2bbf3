"""Small random video models of `transformers`, and clips in which it is known what moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from numpy.typing import NDArray
from sensorium.encoders.media import VideoData

# All sizes differ, so that swapped axes fail; 11, 13 and 19 leave pixels over, 7 leaves a frame over.
SIZES: dict[str, Any] = {
    "hidden_size": 24,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_frames": 7,
    "image_size": [13, 19],
}
VIDEOMAE = SIZES | {"tubelet_size": 2, "patch_size": [3, 4]}
VIVIT = SIZES | {"tubelet_size": [3, 4, 5]}
DECODER = {
    "decoder_hidden_size": 16,
    "decoder_num_attention_heads": 2,
    "decoder_num_hidden_layers": 1,
    "decoder_intermediate_size": 20,
}
SQUARE = VIDEOMAE | {"image_size": 12, "patch_size": 4, "num_frames": 4}

MODELS: dict[str, Callable[[], Any]] = {
    "videomae": lambda: transformers.VideoMAEModel(transformers.VideoMAEConfig(**VIDEOMAE)),
    "videomae-norm": lambda: transformers.VideoMAEModel(
        transformers.VideoMAEConfig(**VIDEOMAE, use_mean_pooling=False, hidden_act="gelu_new")
    ),
    "videomae-plain": lambda: transformers.VideoMAEModel(
        transformers.VideoMAEConfig(**VIDEOMAE, qv_bias=False, hidden_act="relu")
    ),
    "videomae-classifier": lambda: transformers.VideoMAEForVideoClassification(
        transformers.VideoMAEConfig(**VIDEOMAE, num_labels=5)
    ),
    "videomae-pretraining": lambda: transformers.VideoMAEForPreTraining(
        transformers.VideoMAEConfig(**SQUARE, **DECODER, use_mean_pooling=False)
    ),
    "vivit": lambda: transformers.VivitModel(transformers.VivitConfig(**VIVIT)),
    "vivit-plain": lambda: transformers.VivitModel(
        transformers.VivitConfig(**VIVIT, qkv_bias=False, hidden_act="quick_gelu")
    ),
    "vivit-classifier": lambda: transformers.VivitForVideoClassification(
        transformers.VivitConfig(**VIVIT, num_labels=5)
    ),
}


@pytest.fixture(scope="session")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Any, Path]]:
    """A random model of `transformers`, without its head, and the directory that it was saved to with it."""
    made: dict[str, tuple[Any, Path]] = {}

    def make(name: str) -> tuple[Any, Path]:
        if name not in made:
            torch.manual_seed(5)
            model = MODELS[name]().eval().requires_grad_(False)
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
            folder = tmp_path_factory.mktemp(name)
            model.save_pretrained(folder)
            made[name] = (model.base_model, folder)
        return made[name]

    return make


@dataclass(frozen=True, slots=True)
class Scene:
    """A clip of one thing that moves straight on.

    Attributes:
        speed: frame sides a second, in the direction of `angle`: degrees, 0 to the right, 90 downward.
        noise: standard deviation of each pixel; `light`: by how much brightness grows from frame to frame.
        ground: ``plain``, ``cloudy`` or ``tiled``.
        appears: it is not there in the first frame.
    """

    angle: float = 0.0
    speed: float = 0.2
    rate: float = 4.0
    frames: int = 3
    shape: str = "square"
    width: float = 0.2
    ground: str = "cloudy"
    noise: float = 0.0
    light: float = 0.0
    size: tuple[int, int] = (84, 108)
    start: tuple[float, float] | None = None
    appears: bool = False
    seed: int = 0
    direction: NDArray[np.float64] = field(init=False)

    def __post_init__(self) -> None:
        turned = np.deg2rad(self.angle)
        object.__setattr__(self, "direction", np.array([np.cos(turned), np.sin(turned)]))

    def clip(self) -> VideoData:
        """The frames, drawn with smooth edges."""
        rng = np.random.default_rng(self.seed)
        ground = _ground(rng, self.ground, *self.size)
        colour = rng.uniform(0, 255, 3)
        while abs(colour - ground.mean((0, 1))).mean() < 60:
            colour = rng.uniform(0, 255, 3)
        step = self.direction * self.speed / self.rate
        start = np.array([0.5, 0.5]) - step * (self.frames - 1) / 2 if self.start is None else np.array(self.start)
        frames = []
        for number in range(self.frames):
            cover = self._cover(start + step * number)[..., None] * (number > 0 or not self.appears)
            image = (ground * (1 - cover) + colour * cover) * (1 + self.light * number)
            frames.append((image + rng.normal(size=image.shape) * self.noise).round().clip(0, 255).astype(np.uint8))
        return VideoData(np.stack(frames), np.arange(self.frames) / self.rate, self.frames / self.rate)

    def _cover(self, centre: NDArray[np.float64]) -> NDArray[np.float64]:
        """How much of each pixel the thing covers."""
        height, width = self.size
        x = (np.arange(width) + 0.5) / width - centre[0]
        y = (np.arange(height) + 0.5) / height - centre[1]
        if self.shape == "square":
            across = ((self.width / 2 - abs(x)) * width + 0.5).clip(0, 1)
            down = ((self.width / 2 - abs(y)) * height + 0.5).clip(0, 1)
            return down[:, None] * across
        return ((self.width / 2 - np.hypot(x, y[:, None])) * min(height, width) + 0.5).clip(0, 1)


def _ground(rng: np.random.Generator, kind: str, height: int, width: int) -> NDArray[np.float64]:
    if kind == "plain":
        return np.full((height, width, 3), rng.uniform(60, 200, 3))
    if kind == "tiled":
        tiles = rng.uniform(30, 225, (6, 7, 3))
        return tiles[(np.arange(height) * 6 // height)[:, None], np.arange(width) * 7 // width]
    # Cloudy: the spectrum of natural images, amplitudes that fall with frequency.
    down, across = np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width) * width
    fall = 1 / np.maximum(np.hypot(down, across), 1)
    waves = fall * np.exp(2j * np.pi * rng.random((3, *fall.shape)))
    clouds = np.fft.irfft2(waves, (height, width)).transpose(1, 2, 0)
    return (clouds / clouds.std() * 30 + rng.uniform(80, 170, 3)).clip(0, 255)
