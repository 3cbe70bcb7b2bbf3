"""A small random model that reads pictures, sounds and clips: an EfficientNet, a Whisper, a Llama with an adapter.

Sizes are all different, so that swapped axes fail.
"""

from __future__ import annotations

import tokenizers
import torch
import transformers
from sensorium.encoders.audio import (
    AudioConfig,
    AudioEncoder,
    WhisperDecoder,
    WhisperDecoderConfig,
    WhisperEncoder,
    WhisperTokens,
    WhisperTranscriber,
)
from sensorium.encoders.image import EfficientNet, EfficientNetConfig, EfficientNetEncoder, PreprocessConfig
from sensorium.encoders.text import Tokenizer
from sensorium.fusion.adapter import AdapterSwitch, adapter_parameters, add_adapter
from sensorium.fusion.checkpoints import load_checkpoint, open_checkpoint
from sensorium.fusion.connectors import (
    ClipHeads,
    ClipWords,
    PictureHeads,
    PictureWords,
    TorchClipReader,
    TranscriptWords,
)
from sensorium.fusion.connectors.clip_choice import COUNTS, EVENTS
from sensorium.fusion.connectors.soft_words import SoftWords
from sensorium.fusion.model import MultimodalModel
from sensorium.mobile_export.export import ExportSource
from sensorium.mobile_export.export_media import MediaSource
from sensorium.sdk import Model
from sensorium.sdk.testing import byte_tokenizer
from sensorium.sdk.torch_engine import TorchEngine

__all__ = ["small_picture_words", "small_source", "small_torch_model", "small_transcriber"]

_IDS = {"end": 20, "start": 21, "translate": 22, "transcribe": 23, "no_timestamps": 24}


def _drawn(module: torch.nn.Module, deviation: float) -> torch.nn.Module:
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if "running_var" in name:
            torch.nn.init.uniform_(value, 0.5, 1.5)
        elif value.is_floating_point():
            torch.nn.init.normal_(value, std=deviation)
    return module.eval().requires_grad_(False)


def small_picture_words(tokenizer: Tokenizer, table: torch.Tensor) -> PictureWords:
    """Pictures of 66 x 78 pixels, 13 labels and 7 names."""
    torch.manual_seed(2)
    network = EfficientNet(
        EfficientNetConfig(name="small", width=0.3, depth=0.5, image_size=66, crop_share=0.9, labels=13)
    )
    _drawn(network, 0.15)
    steps = PreprocessConfig(height=66, width=78, scale=1.0, mean=(127.0, 120.0, 110.0), std=(128.0, 120.0, 99.0))
    heads = PictureHeads(network.feature_size, torch.zeros(7, 11), width=19)
    _drawn(heads, 0.2)
    labels = [f"thing {'x' * (number % 5)}{number}" for number in range(13)]
    return PictureWords(
        EfficientNetEncoder(network, steps),
        heads,
        labels=labels,
        names=[f"n{number}" for number in range(7)],
        spell=lambda text: tokenizer.encode(text, add_special=False, parse_special=False),
        table=table,
        placeholder="<picture>",
    )


def small_transcriber() -> WhisperTranscriber:
    """A Whisper of windows of 1.52 s that says letters."""
    torch.manual_seed(4)
    shape = {"width": 32, "heads": 2, "mlp_size": 44}
    encoder = WhisperEncoder(AudioConfig(**shape, layers=2, positions=76, overlap=10))
    decoder = WhisperDecoder(WhisperDecoderConfig(**shape, layers=3, vocabulary_size=70, positions=23))
    words = {chr(97 + number): number for number in range(20)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="a"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    names = ("endoftext", "startoftranscript", "translate", "transcribe", "notimestamps")
    backend.add_special_tokens([f"<|{name}|>" for name in names])
    backend.add_tokens([f"<|{number / 50:.2f}|>" for number in range(45)])
    tokens = WhisperTokens(**_IDS, languages={}, suppressed=(3,), suppressed_first=(5,))
    parts = (AudioEncoder(_drawn(encoder, 0.3)), _drawn(decoder, 0.4))  # type: ignore[arg-type]
    return WhisperTranscriber(*parts, Tokenizer(backend), tokens)  # type: ignore[arg-type]


def small_source(folder: object) -> tuple[ExportSource, AdapterSwitch]:
    """What is exported, and the switch of its adapter.

    Args:
        folder: that the decoder's checkpoint is written to.
    """
    torch.manual_seed(7)
    tokenizer = byte_tokenizer()
    tokenizer.save(folder)  # type: ignore[arg-type]
    tokenizer = Tokenizer.from_directory(folder, placeholders=("<picture>", "<sound>", "<clip>"))  # type: ignore[arg-type]
    sizes = {"hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 3}
    config = transformers.LlamaConfig(
        **sizes,
        vocab_size=tokenizer.vocabulary_size,
        num_key_value_heads=1,
        max_position_embeddings=700,
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder)
    checkpoint = open_checkpoint(folder)  # type: ignore[arg-type]
    decoder = load_checkpoint(checkpoint, device="cpu", dtype=torch.float32).eval().requires_grad_(False)
    checkpoint.close()
    switch = add_adapter(decoder, "small", targets=("o_proj", "down_proj"), rank=5, scale=1.5)
    for parameter in adapter_parameters(decoder).values():
        torch.nn.init.normal_(parameter.requires_grad_(False), std=0.2)
    table = decoder.model.embed_tokens.weight.detach()

    def spell(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special=False, parse_special=False))

    def sounds() -> TranscriptWords:
        return TranscriptWords(small_transcriber(), spell=spell, table=table, placeholder="<sound>")

    def clips() -> ClipWords:
        pictures = small_picture_words(tokenizer, table)
        torch.manual_seed(6)
        heads = ClipHeads(pictures.encoder.feature_size, width=10)
        _drawn(heads, 0.3)
        speller = SoftWords({"event": EVENTS, "count": COUNTS}, spell, table)
        return ClipWords(TorchClipReader(pictures, heads), speller, sounds, placeholder="<clip>")

    connectors = {"image": lambda: small_picture_words(tokenizer, table), "audio": sounds, "video": clips}
    model = MultimodalModel(decoder, connectors, adapter="small")  # type: ignore[arg-type]
    media = MediaSource(
        model, {"image": {}, "audio": {"seconds": 9.0}, "video": {"frames": 5.0, "seconds": 11.0}}, "small"
    )
    return ExportSource(decoder=decoder, tokenizer=tokenizer, name="small", licence="MIT", media=media), switch


def small_torch_model(source: ExportSource, switch: AdapterSwitch) -> Model:
    """The same model, run by torch."""
    assert source.media is not None
    engine = TorchEngine(source.decoder, media=source.media.model, adapter=switch)
    return Model(engine, source.tokenizer, name="small")
