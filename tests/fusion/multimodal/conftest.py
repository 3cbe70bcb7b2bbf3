"""Photos, sounds, and small random multimodal models of `transformers` in directories, that these tests share."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
import transformers
from numpy.typing import NDArray
from sensorium import sdk
from skimage import data
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors, trainers
from tokenizers import Tokenizer as Backend
from torch import Tensor

from ...references import KeepsDoubles

Photo = NDArray[np.uint8]
Sound = NDArray[np.float32]
# As the published checkpoints write it: pictures before texts, lists of parts alone, no token that begins the text.
TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
# All sizes differ, so that swapped axes fail.
TOWER: dict[str, Any] = {
    "hidden_size": 24,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "num_hidden_layers": 4,
    "image_size": 35,
    "patch_size": 5,
}
TEXT: dict[str, Any] = {
    "vocab_size": 331,
    "hidden_size": 30,
    "intermediate_size": 44,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 10,
    "max_position_embeddings": 1024,
}


@dataclass(frozen=True)
class Made:
    """A random model of `transformers`, its processor, and the directory that both were saved to."""

    model: Any
    processor: Any
    folder: Path

    def inputs(self, conversation: Conversation) -> Any:
        """What the processor makes of a conversation."""
        options = {"tokenize": True, "add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
        return self.processor.apply_chat_template(conversation, **options)


Conversation = Sequence[Mapping[str, Any]]


def asked(conversation: Conversation) -> list[dict[str, Any]]:
    """A conversation of `transformers` with our parts for its arrays."""

    def part(block: Mapping[str, Any]) -> Any:
        if block["type"] == "audio":
            return sdk.Audio(block["audio"], rate=16_000)
        return sdk.Text(block["text"]) if block["type"] == "text" else sdk.Image(block["image"])

    return [{**message, "content": [part(block) for block in message["content"]]} for message in conversation]


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference as a share of the largest value."""
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())


def in_doubles(model: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """Logits [T, V] of `transformers`, computed in float64."""
    twin = copy.deepcopy(model).double()
    for name, buffer in twin.named_buffers():
        if "inv_freq" in name:
            buffer.data = buffer.data.float()  # rotary angles are float32 in both
        if name.endswith("embed_scale"):  # was rounded to float32 when the model was built
            buffer.data = torch.tensor(twin.config.get_text_config().hidden_size ** 0.5, dtype=torch.float64)
    wide = {name: value.double() if value.is_floating_point() else value for name, value in inputs.items()}
    with KeepsDoubles():
        return twin(**wide).logits[0]


def assert_equals(reference: Made, conversation: Conversation) -> None:
    """Ours equals `transformers` on a conversation: ids, all logits in float32 and float64, and a greedy answer."""
    inputs = reference.inputs(conversation)
    ours = sdk.load(reference.folder, dtype="float32", device="cpu")
    plan = ours.encode(asked(conversation))
    assert list(plan) == inputs["input_ids"][0].tolist()
    if "input_features" in inputs:
        # The same spectrograms for both from here on: the last digits of an FFT are larger than float64's.
        spectrograms = our_spectrograms(ours, plan)
        assert_spectrograms(spectrograms, inputs["input_features"])
        inputs["input_features"] = spectrograms
    single = torch.from_numpy(ours.logits(plan))
    assert relative(single, reference.model(**inputs).logits[0]) <= 1e-5
    length = len(plan)
    answer = reference.model.generate(**inputs, do_sample=False, max_new_tokens=9, eos_token_id=None)[0, length:]
    assert list(ours.ask(asked(conversation), max_new_tokens=9, temperature=0).tokens) == answer.tolist()

    double = sdk.load(reference.folder, dtype=torch.float64, device="cpu").engine
    embedded = double.media.embed(plan)  # type: ignore[attr-defined]
    with torch.no_grad():
        places = {"bidirectional": double.media.bidirectional(plan), "positions": double.media.positions(plan)}  # type: ignore[attr-defined]
        logits = double.decoder(embeddings=embedded, **places)[0]  # type: ignore[attr-defined]
    assert relative(logits, in_doubles(reference.model, inputs)) <= 1e-9


def our_spectrograms(model: Any, plan: Any) -> Tensor:
    """What the tower reads of a plan's sounds: windows side by side [windows, bins, frames]."""
    encoder = model.engine.media.connector("audio").encoder
    if encoder.config.trim:  # only as long as each sound, one after the other
        counts = [max(2, -(-len(item.media.samples) // 160)) for item in plan.items]
        return torch.cat(
            [encoder.mel(item.media, count) for item, count in zip(plan.items, counts, strict=True)], dim=1
        )
    size = encoder.config.window_frames
    mels = []
    for item in plan.items:
        count = -(-len(item.media.samples) // encoder.config.window_samples)
        mels.append(encoder.mel(item.media, count * size).unflatten(1, (count, size)).transpose(0, 1))
    return torch.cat(mels)


def assert_spectrograms(found: Tensor, expected: Tensor) -> None:
    """What the processor computes: both are float32, and up to 1.7e-5 from the same in float64."""
    torch.testing.assert_close(found, expected, rtol=0, atol=3e-5)


@pytest.fixture(scope="session")
def spectrograms_equal() -> Callable[[Any, Any, Tensor], None]:
    """Asserts that ours of a model's plan equal a processor's."""
    return lambda model, plan, expected: assert_spectrograms(our_spectrograms(model, plan), expected)


@pytest.fixture(scope="session")
def equals_reference() -> Callable[[Made, Conversation], None]:
    """Asserts that ours equals `transformers` on a conversation."""
    return assert_equals


@pytest.fixture(scope="session")
def asking() -> Callable[..., list[dict[str, Any]]]:
    """Makes one message of texts, photos and sounds, as `transformers` takes it."""

    def block(part: str | Photo | Sound) -> dict[str, Any]:
        if isinstance(part, str):
            return {"type": "text", "text": part}
        return {"type": "image", "image": part} if part.ndim == 3 else {"type": "audio", "audio": part}

    return lambda *parts: [{"role": "user", "content": [block(part) for part in parts]}]


@pytest.fixture(scope="session")
def our_parts() -> Callable[[Conversation], list[dict[str, Any]]]:
    """Makes a conversation of `transformers` one of ours."""
    return asked


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Callable[..., Any]:
    """Builds a small byte-level tokenizer."""
    return tokenizer


@pytest.fixture(scope="session")
def tower() -> dict[str, Any]:
    """Sizes of a vision tower, all different."""
    return TOWER


@pytest.fixture(scope="session")
def text() -> dict[str, Any]:
    """Sizes of a decoder, all different."""
    return TEXT


def tokenizer(*tokens: AddedToken, template: str = TEMPLATE, roles: Mapping[str, str] | None = None) -> Any:
    """A small byte-level tokenizer that begins texts with ``<s>``; `roles` name some of the tokens."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(vocab_size=317, special_tokens=special, initial_alphabet=alphabet)
    backend.train_from_iterator(["USER: What is in this picture? ASSISTANT: It is a cat."] * 9, trainer)
    backend.add_tokens(list(tokens))
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    usual = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    more = {"extra_special_tokens": dict(roles)} if roles else {}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, chat_template=template, **usual, **more)


@pytest.fixture(scope="session")
def photos() -> Mapping[str, Photo]:
    """Real photos of different sizes and shapes, uint8 [H, W, 3]."""
    found: dict[str, Photo] = {name: getattr(data, name)() for name in ("coffee", "chelsea", "astronaut", "rocket")}
    odd = np.ascontiguousarray(found["coffee"][17:150, 3:40])
    tall = np.ascontiguousarray(found["rocket"].transpose(1, 0, 2)[:, ::3])
    return found | {"odd": odd, "tall": tall, "tiny": np.ascontiguousarray(found["chelsea"][:5, :7])}


@pytest.fixture(scope="session")
def sounds(root: Path) -> Mapping[str, Sound]:
    """Sounds of odd lengths at 16 kHz, float32 [N], shorter than 2 s but for ``long``: speech, and chirps in noise."""
    speech, rate = soundfile.read(root / "tests" / "data" / "speech.flac", dtype="float32")
    assert rate == 16_000

    def chirp(samples: int, low: float, high: float) -> Sound:
        noise = np.random.default_rng(samples).standard_normal(samples) * 0.03
        sweep = np.sin(2 * np.pi * np.cumsum(np.linspace(low, high, samples)) / rate)
        return (0.3 * sweep * np.sin(np.arange(samples) / 2500) ** 2 + noise).astype(np.float32)

    made = {"chirp": chirp(11_777, 200, 3100), "falling": chirp(29_963, 2900, 90), "long": chirp(77_003, 150, 3700)}
    return made | {"speech": speech[8_001:35_998], "click": chirp(643, 900, 1200)}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[], tuple[Any, Any]]], Made]:
    """Fills a model with random numbers in float64, and saves it and its processor; once for each name."""
    known: dict[str, Made] = {}

    def make(name: str, build: Callable[[], tuple[Any, Any]]) -> Made:
        if name not in known:
            model, processor = build()
            model = model.eval().requires_grad_(False)
            torch.manual_seed(11)
            for parameter in model.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
            folder = tmp_path_factory.mktemp(name)
            model.save_pretrained(folder)
            processor.save_pretrained(folder)
            known[name] = Made(model, processor, folder)
        return known[name]

    return make
