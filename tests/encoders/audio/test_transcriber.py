"""Whisper's own transcripts: token rules, seeking, and tiny.en beside transformers' `generate`."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from numpy.typing import NDArray
from sensorium.encoders.audio import (
    AudioEncoder,
    CTranslate2File,
    WhisperDecoder,
    WhisperDecoderConfig,
    WhisperEncoder,
    WhisperTranscriber,
    load_audio_encoder,
    load_transcriber,
)
from sensorium.encoders.audio.ctranslate2_whisper import CTranslate2Whisper
from sensorium.encoders.audio.whisper_tokens import WhisperTokens, whisper_tokens
from sensorium.encoders.errors import CheckpointError, InvalidInputError, OptionError, TokenizerError
from sensorium.encoders.media import AudioData
from sensorium.encoders.text import Tokenizer
from torch import Tensor
from transformers import GenerationConfig, WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.generation.logits_process import WhisperTimeStampLogitsProcessor

# A vocabulary of 70: words 0..19, end 20, start 21, no timestamps 29, timestamps 30..69.
IDS = {"start": 21, "end": 20, "transcribe": 27, "translate": 26, "no_timestamps": 29}
TOKENS = WhisperTokens(**IDS, languages={})
MakeNetwork = Callable[..., WhisperEncoder]


@pytest.fixture(scope="module")
def their_tiny_en(tiny_en: Path) -> WhisperForConditionalGeneration:
    """tiny.en in transformers, its weights read through `CTranslate2Whisper`."""
    whisper = CTranslate2Whisper(CTranslate2File(tiny_en / "model.bin"))
    state: dict[str, Tensor] = {name: torch.empty(shape) for name, shape in whisper.shapes.items()}
    for name, tensor in state.items():
        whisper.read(name, tensor)
    whisper.close()
    with torch.device("meta"):
        model = WhisperForConditionalGeneration(WhisperConfig(vocab_size=51_864))
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"]
    model.load_state_dict(state, assign=True)
    settings = json.loads((tiny_en / "config.json").read_text())
    generation = GenerationConfig(
        bos_token_id=50_256,
        eos_token_id=50_256,
        pad_token_id=50_256,
        decoder_start_token_id=50_257,
        suppress_tokens=settings["suppress_ids"],
        begin_suppress_tokens=settings["suppress_ids_begin"],
        max_length=448,
    )
    for name, value in (("no_timestamps_token_id", 50_362), ("is_multilingual", False)):
        setattr(generation, name, value)
    generation.max_initial_timestamp_index = 50
    model.generation_config = generation
    return model.eval()


@torch.no_grad()
def test_tiny_en_has_transformers_features(
    tiny_en: Path, their_tiny_en: WhisperForConditionalGeneration, speech: NDArray[np.float32]
) -> None:
    mel = WhisperFeatureExtractor()(speech, sampling_rate=16_000, return_tensors="pt").input_features
    expected = their_tiny_en.model.encoder(mel).last_hidden_state[0, :165]
    ours = load_audio_encoder(tiny_en).encode([AudioData(speech)]).features[0]
    assert float(torch.nn.functional.cosine_similarity(ours, expected, dim=-1).min()) > 0.999999
    assert float((ours - expected).norm() / expected.norm()) < 1e-5


def words(tokens: list[int]) -> list[int]:
    return [token for token in tokens if token < 50_256]


def generated(model: WhisperForConditionalGeneration, samples: NDArray[np.float32], *, timestamps: bool) -> list[int]:
    long = {"truncation": False, "padding": "longest", "return_attention_mask": True} if len(samples) > 480_000 else {}
    inputs = WhisperFeatureExtractor()(samples, sampling_rate=16_000, return_tensors="pt", **long)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.generate(**inputs, return_timestamps=timestamps)[0].tolist()


@pytest.fixture(scope="module")
def whisper(tiny_en: Path) -> WhisperTranscriber:
    return load_transcriber(tiny_en / "model.bin")


def test_tiny_en_transcribes_as_transformers_does(
    whisper: WhisperTranscriber, their_tiny_en: WhisperForConditionalGeneration, speech: NDArray[np.float32]
) -> None:
    ours = whisper.transcribe(AudioData(speech))
    (segment,) = ours.segments
    assert list(segment.tokens) == words(generated(their_tiny_en, speech, timestamps=False))
    assert (ours.text, ours.language) == ("He might even have been made amiable himself.", "en")
    assert (segment.begin, segment.end) == (0.0, pytest.approx(len(speech) / 16_000, abs=0.01))


def test_tiny_en_transcribes_any_length(
    whisper: WhisperTranscriber, their_tiny_en: WhisperForConditionalGeneration, speech: NDArray[np.float32]
) -> None:
    """The same sentence ten times, 33 s: one of them lies across the seam of two windows."""
    long = np.tile(speech, 10)
    ours = whisper.transcribe(AudioData(long))
    expected = words(generated(their_tiny_en, long, timestamps=True))
    assert [token for segment in ours.segments for token in segment.tokens] == expected
    assert ours.text.lower().count("amiable himself") == 10
    ends = [0.0, *(segment.end for segment in ours.segments)]
    for before, segment in zip(ends, ours.segments, strict=False):
        assert before <= segment.begin < segment.end <= len(long) / 16_000


@pytest.mark.parametrize("seed", range(40))
def test_timestamp_rules_are_transformers(seed: int) -> None:
    torch.manual_seed(seed)
    config = GenerationConfig(eos_token_id=20)
    config.no_timestamps_token_id, config.max_initial_timestamp_index = 29, 50
    rules = WhisperTimeStampLogitsProcessor(config, begin_index=1)
    produced: list[int] = []
    for _ in range(12):
        logits = torch.randn(70) * 3
        logits[30:] += seed % 4
        expected = rules(torch.tensor([[21, *produced]]), logits[None])[0]
        ours = torch.from_numpy(TOKENS.forbid(logits.numpy(), produced, timestamps=True))
        torch.testing.assert_close(ours, expected, rtol=0, atol=0)
        token = int(ours.argmax())
        if token == 20:
            break
        produced.append(token)


def test_suppressed_tokens() -> None:
    tokens = WhisperTokens(**IDS, languages={}, suppressed=(3,), suppressed_first=(5,))
    flat = np.zeros(70, np.float32)
    assert np.flatnonzero(np.isinf(tokens.forbid(flat, [], timestamps=False))).tolist() == [3, 5]
    assert np.flatnonzero(np.isinf(tokens.forbid(flat, [1], timestamps=False))).tolist() == [3]


def test_prompts() -> None:
    assert TOKENS.prompt(None, "transcribe", timestamps=False) == [21, 29]
    assert TOKENS.prompt("en", "transcribe", timestamps=True) == [21]
    for language, task in (("de", "transcribe"), ("en", "translate"), (None, "summarise")):
        with pytest.raises(OptionError):
            TOKENS.prompt(language, task, timestamps=False)  # type: ignore[arg-type]
    several = WhisperTokens(**IDS, languages={"de": 22, "en": 23})
    assert several.prompt("de", "translate", timestamps=False) == [21, 22, 26, 29]
    with pytest.raises(OptionError, match="de, en"):
        several.prompt("fr", "transcribe", timestamps=False)


@pytest.fixture(scope="module")
def small_tokenizer() -> Tokenizer:
    """Words ``a`` to ``t``, control tokens as in `TOKENS`, three languages."""
    words = {chr(97 + number): number for number in range(20)}
    names = ("endoftext", "startoftranscript", "de", "en", "fr", "startoflm", "translate", "transcribe", "nospeech")
    names = (*names, "notimestamps")
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="a"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.add_special_tokens([f"<|{name}|>" for name in names])
    return Tokenizer(backend)


def test_control_tokens_are_found(small_tokenizer: Tokenizer) -> None:
    found = whisper_tokens(small_tokenizer, 70, {"suppress_ids": [1, 2], "begin_suppress_tokens": None})
    assert (found.start, found.end, found.no_timestamps, found.first_timestamp) == (21, 20, 29, 30)
    assert (found.languages, found.suppressed, found.suppressed_first) == ({}, (1, 2), ())
    several = whisper_tokens(small_tokenizer, 51_865, {}).languages
    assert {"de": 22, "en": 23, "fr": 24}.items() <= several.items()
    for config in ({"suppress_ids": 3}, {"suppress_tokens": [70]}, {"suppress_tokens": [-1]}):
        with pytest.raises(CheckpointError, match="no tokens"):
            whisper_tokens(small_tokenizer, 70, config)
    with pytest.raises(CheckpointError, match=r"<\|notimestamps\|>"):
        whisper_tokens(small_tokenizer, 29, {})


class Scripted(WhisperDecoder):
    """Says what it is told to, window after window."""

    def __init__(self, windows: list[list[int]]) -> None:
        super().__init__(
            WhisperDecoderConfig(vocabulary_size=70, width=30, layers=1, heads=3, mlp_size=7, positions=40)
        )
        self.windows = [[*window, 20] for window in windows]

    def forward(self, tokens_BT: Tensor, cache: Any) -> Tensor:
        if not cache.length:
            self.current = iter(self.windows.pop(0))
        cache.length += tokens_BT.shape[1]
        return torch.nn.functional.one_hot(torch.tensor([[next(self.current)]]), 70).float() * 1e4


def transcribe(
    network: WhisperEncoder, tokenizer: Tokenizer, windows: list[list[int]], samples: int, **options: Any
) -> tuple[list[tuple[float, float, str]], Scripted]:
    decoder = Scripted(windows)
    whisper = WhisperTranscriber(AudioEncoder(network), decoder, tokenizer, TOKENS)
    found = whisper.transcribe(AudioData(np.full(samples, 0.1, np.float32)), **options)
    return [(segment.begin, segment.end, segment.text.strip()) for segment in found.segments], decoder


def test_the_next_window_begins_at_the_last_complete_segment(
    make_network: MakeNetwork, small_tokenizer: Tokenizer
) -> None:
    """Windows of 1.52 s; timestamp 30 + n is n * 20 ms."""
    script = [
        [30, 1, 40, 40, 2, 3, 60, 60, 4],  # b until 0.2, c d until 0.6; e is heard again
        [30, 4, 5, 35, 35, 6, 50],  # from 0.6: e f until 0.7, g until 1.0, and then nothing in this window
        [30, 7],  # from 2.12: h, without an end
    ]
    found, decoder = transcribe(make_network(layers=0), small_tokenizer, script, 16_000 * 3)
    assert found == [(0.0, 0.2, "b"), (0.2, 0.6, "c d"), (0.6, 0.7, "e f"), (0.7, 1.0, "g"), (2.12, 3.0, "h")]
    assert not decoder.windows


def test_silence_says_nothing(make_network: MakeNetwork, small_tokenizer: Tokenizer) -> None:
    assert transcribe(make_network(layers=0), small_tokenizer, [[]], 100)[0] == []
    assert transcribe(make_network(layers=0), small_tokenizer, [[30], [30]], 40_000)[0] == []


def test_a_decoder_that_never_ends_is_stopped(make_network: MakeNetwork, small_tokenizer: Tokenizer) -> None:
    ((begin, end, text),) = transcribe(make_network(layers=0), small_tokenizer, [[1] * 100], 8_000)[0]
    assert (begin, end, len(text.split())) == (0.0, 0.5, 39)  # 40 positions, of which the prompt takes 2


def test_the_language_is_recognised(make_network: MakeNetwork, small_tokenizer: Tokenizer) -> None:
    tokens = WhisperTokens(**IDS, languages={"de": 22, "fr": 24})
    whisper = WhisperTranscriber(AudioEncoder(make_network()), Scripted([[24], [1]]), small_tokenizer, tokens)
    found = whisper.transcribe(AudioData(np.zeros(100, np.float32)))
    assert (found.language, found.text) == ("fr", "b")


def test_parts_that_do_not_fit(make_network: MakeNetwork, small_tokenizer: Tokenizer) -> None:
    encoder = AudioEncoder(make_network(width=40))
    with pytest.raises(InvalidInputError, match="width 40"):
        WhisperTranscriber(encoder, Scripted([]), small_tokenizer, TOKENS)


def test_whole_checkpoints(
    their_whisper: Any,
    ctranslate2_variables: Mapping[str, Tensor],
    model_bin: Callable[..., bytes],
    tmp_path: Path,
) -> None:
    """Both layouts hold the same decoder; without a tokenizer or with half a decoder they are refused."""
    their_whisper.save_pretrained(tmp_path / "hub")
    (tmp_path / "fast").mkdir()
    (tmp_path / "fast" / "model.bin").write_bytes(model_bin(ctranslate2_variables))
    names = {"endoftext": 50, "startoftranscript": 51, "translate": 52, "transcribe": 53, "notimestamps": 54}
    words = {f"w{number}": number for number in range(50)}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
    backend.add_special_tokens([f"<|{name}|>" for name in names])
    loaded = []
    for directory in (tmp_path / "hub", tmp_path / "fast"):
        with pytest.raises(TokenizerError):
            load_transcriber(directory)
        backend.save(str(directory / "tokenizer.json"))
        (directory / "generation_config.json").write_text('{"suppress_tokens": [7], "begin_suppress_tokens": []}')
        loaded.append(load_transcriber(directory))
        assert loaded[-1].tokens.suppressed == (7,) and loaded[-1].tokens.no_timestamps == 54
    hub, fast = (whisper.decoder.state_dict() for whisper in loaded)
    assert all(torch.equal(tensor, fast[name]) for name, tensor in hub.items()) and hub.keys() == fast.keys()
    for name in ("decoder/embeddings/weight", "decoder/num_heads", "decoder/layer_1/attention/linear_1/weight"):
        part = {key: value for key, value in ctranslate2_variables.items() if key != name}
        (tmp_path / "fast" / "model.bin").write_bytes(model_bin(part))
        with pytest.raises(CheckpointError):
            load_transcriber(tmp_path / "fast")
    encoder_only = {key: value for key, value in ctranslate2_variables.items() if key.startswith("encoder/")}
    (tmp_path / "fast" / "model.bin").write_bytes(model_bin(encoder_only))
    assert load_audio_encoder(tmp_path / "fast").feature_size == 30
    with pytest.raises(CheckpointError):
        load_transcriber(tmp_path / "fast")
