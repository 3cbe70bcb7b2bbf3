"""Text encoders give what `transformers` gives on small random models, and drop no part of long texts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import tokenizers
import torch
from sensorium.encoders.encoder import Encoder
from sensorium.encoders.errors import (
    CheckpointError,
    ContextLengthError,
    InvalidInputError,
    TokenizerError,
    UnknownFamilyError,
)
from sensorium.encoders.media import AudioData
from sensorium.encoders.storage import read_json
from sensorium.encoders.text.pooling import PoolingConfig
from sensorium.encoders.text.preprocess import TextPreprocess, plan_windows
from sensorium.encoders.text.text_encoder import TextEncoder
from sensorium.encoders.text.tokenizer import Tokenizer
from sensorium.encoders.text.weights import load_text_encoder
from torch import Tensor

from ...checkpoints import LETTERS, TEXT_ENCODERS, text_encoder

TEXTS = ["a cab", "", "bad dad had a cab", "zzz", "a b c d e f g h i j", "fed by a dog"]
Reference = Callable[[str], tuple[Any, Path]]


@pytest.fixture(scope="session")
def text_reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """A random model of `transformers`, without its head, and the directory that it was saved to with it."""
    made: dict[str, tuple[Any, Path]] = {}

    def make(name: str) -> tuple[Any, Path]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = (text_encoder(name, folder), folder)
        return made[name]

    return make


def edited(folder: Path, to: Path, **files: Any) -> Path:
    """A copy of a directory with other fields in config.json and other JSON files, ``__`` for a slash."""
    shutil.copytree(folder, to)
    config = read_json(to / "config.json") | files.pop("config", {})
    for name, content in {"config": config, **files}.items():
        path = to / f"{name.replace('__', '/')}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return to


def reference_features(model: Any, rows: list[list[int]], pad: int) -> list[Tensor]:
    """Features of each row of ids, computed in one padded batch."""
    longest = max(map(len, rows))
    ids = torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    features = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return [row[: len(tokens)] for row, tokens in zip(features, rows, strict=True)]


@pytest.mark.parametrize("name", sorted(TEXT_ENCODERS))
def test_features_equal_the_reference(name: str, text_reference: Reference) -> None:
    model, folder = text_reference(name)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-9)):
        encoder = load_text_encoder(folder, dtype=dtype)
        rows = [encoder.preprocess.tokenizer.encode(text) for text in TEXTS]
        expected = reference_features(model.to(dtype), rows, model.config.pad_token_id)
        output = encoder.encode(TEXTS)
        assert output.lengths.tolist() == [len(row) for row in rows]
        assert output.timestamps is None
        for ours, theirs in zip(output.features, expected, strict=True):
            torch.testing.assert_close(ours[: len(theirs)], theirs, rtol=tolerance, atol=tolerance * theirs.abs().max())
            assert not ours[len(theirs) :].any()
    model.float()


@pytest.mark.parametrize("kinds", [("mean",), ("cls",), ("max",), ("cls", "max", "mean")])
@pytest.mark.parametrize("normalised", [False, True])
def test_pooling(kinds: Any, normalised: bool, text_reference: Reference) -> None:
    model, folder = text_reference("bert")
    encoder = load_text_encoder(folder, pooling=PoolingConfig(kinds=kinds, normalised=normalised))
    rows = [encoder.preprocess.tokenizer.encode(text) for text in TEXTS]
    makers = {"mean": lambda x: x.mean(0), "cls": lambda x: x[0], "max": lambda x: x.amax(0)}
    features = reference_features(model, rows, 0)
    expected = torch.stack([torch.cat([makers[kind](row) for kind in kinds]) for row in features])
    if normalised:
        expected = expected / expected.norm(dim=1, keepdim=True)
    embedded = encoder.embed(TEXTS)
    assert embedded.shape == (6, encoder.embedding_size)
    torch.testing.assert_close(embedded, expected, rtol=1e-5, atol=1e-5)


def test_a_batch_gives_each_text_what_it_is_alone(text_reference: Reference) -> None:
    encoder = load_text_encoder(text_reference("bert")[1])
    assert isinstance(encoder, Encoder)
    assert (encoder.modality, encoder.feature_size) == ("text", 24)
    texts = [*TEXTS, "a b " * 30]
    together = encoder.embed(texts)
    for text, row in zip(texts, together, strict=True):
        torch.testing.assert_close(encoder.embed([text])[0], row, rtol=1e-5, atol=1e-5)
    assert torch.equal(encoder.embed(tuple(texts)), together)
    assert not together.requires_grad


def test_windows_cover_a_text_and_keep_each_token_once() -> None:
    assert plan_windows(0, 5) == [(0, 0, 0, 0)]
    assert plan_windows(5, 5) == [(0, 5, 0, 5)]
    assert plan_windows(12, 8) == [(0, 8, 0, 6), (4, 12, 6, 12)]
    for room in (1, 2, 3, 4, 7, 16):
        for count in range(room + 1, 60):
            windows = plan_windows(count, room)
            assert [begin for _, _, begin, _ in windows] == [0, *(end for *_, end in windows[:-1])]
            assert windows[-1][3] == count
            assert all(last - first == room and first <= begin < end <= last for first, last, begin, end in windows)
            for (_, last, _, _), (first, *_) in pairwise(windows):
                assert last - first >= room // 4


def test_a_long_text_is_pooled_over_all_of_its_windows(text_reference: Reference) -> None:
    """
    A text of 30 letters in windows of 19, two of them special, [ and ]:

        [ 0 … 16 ]                 keeps [ 0 … 14
               [ 13 … 29 ]         keeps           15 … 29 ]
    """
    model, folder = text_reference("bert")
    encoder = load_text_encoder(folder, pooling=PoolingConfig(kinds=("cls", "max", "mean")))
    letters = [f"{LETTERS[number % 26]}" for number in range(30)]
    ids = encoder.preprocess.tokenizer.encode(" ".join(letters), add_special=False)
    first, second = encoder.preprocess(" ".join(letters))
    assert first.tokens == (3, *ids[:17], 4)
    assert second.tokens == (3, *ids[13:], 4)
    assert (first.kept, second.kept) == ((0, 16), (3, 19))
    one, two = reference_features(model, [list(first.tokens), list(second.tokens)], 0)
    kept = torch.cat([one[:16], two[3:]])
    output = encoder.encode([" ".join(letters)])
    torch.testing.assert_close(output.features[0], kept, rtol=1e-5, atol=1e-5)
    assert output.lengths.tolist() == [32]
    expected = torch.cat([(one[0] + two[0]) / 2, kept.amax(0), kept.mean(0)])
    torch.testing.assert_close(encoder.embed([" ".join(letters)])[0], expected, rtol=1e-5, atol=1e-5)


def test_the_end_of_a_long_text_counts_and_long_texts_can_be_errors(text_reference: Reference) -> None:
    folder = text_reference("bert")[1]
    encoder = load_text_encoder(folder)
    long = " ".join(["a b c"] * 40)
    assert not torch.allclose(encoder.embed([long + " a"]), encoder.embed([long + " z"]))
    strict = load_text_encoder(folder, long="error")
    strict.embed(["a " * 17])
    with pytest.raises(ContextLengthError, match=r"(?s)20 tokens.*at most 19 tokens.*windows") as caught:
        strict.embed(["a", "a " * 18])
    assert (caught.value.tokens, caught.value.limit) == (20, 19)


def test_special_tokens_in_a_text_are_plain_text(text_reference: Reference) -> None:
    encoder = load_text_encoder(text_reference("bert")[1])
    (window,) = encoder.preprocess("a [SEP] b")
    assert window.tokens.count(4) == 1


def test_the_directory_of_sentence_transformers_is_obeyed(text_reference: Reference, tmp_path: Path) -> None:
    folder = text_reference("bert")[1]
    module = "sentence_transformers.models."
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": module + "Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": module + "Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": module + "Normalize"},
    ]
    pooling = {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False, "include_prompt": True}
    full = edited(
        folder,
        tmp_path / "full",
        modules=modules,
        sentence_bert_config={"max_seq_length": 9},
        config_sentence_transformers={"default_prompt_name": "query", "prompts": {"query": "b a "}},
        **{"1_Pooling__config": pooling},
    )
    encoder = load_text_encoder(full)
    assert encoder.pooling == PoolingConfig(kinds=("cls",), normalised=True, prompt="b a ")
    assert encoder.preprocess.longest == 9
    plain = load_text_encoder(folder)
    assert plain.pooling == PoolingConfig()
    assert plain.preprocess.longest == 19
    torch.testing.assert_close(encoder.embed(["c"]), encoder.embed(["b a c"], prompt=""))
    torch.testing.assert_close(encoder.embed(["c"]).norm(dim=1), torch.ones(1))
    newer = edited(full, tmp_path / "newer", **{"1_Pooling__config": {"pooling_mode": "max"}})
    assert load_text_encoder(newer).pooling.kinds == ("max",)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"modules": [{"type": "x.Dense", "path": "2_Dense"}]}, "Dense"),
        ({"modules": [{"type": "x.Transformer", "path": "0_Transformer"}]}, "Transformer at the top"),
        ({"modules": [{"type": "x.Pooling", "path": "../other"}]}, "other"),
        ({"modules": [{"type": "x.Pooling", "path": ".."}]}, "does not know"),
        ({"modules": [{"kind": 1}]}, "damaged"),
        ({"modules": {"type": "x"}}, "damaged"),
        ({"modules": [{"type": "x.Pooling", "path": "1_Pooling"}]}, "There is no config.json"),
        (
            {
                "modules": [{"type": "x.Pooling", "path": "1_Pooling"}],
                "1_Pooling__config": {"pooling_mode_lasttoken": True},
            },
            "lasttoken",
        ),
        (
            {
                "modules": [{"type": "x.Pooling", "path": "1_Pooling"}],
                "1_Pooling__config": {"pooling_mode_mean_tokens": True, "include_prompt": False},
            },
            "include_prompt",
        ),
        ({"sentence_bert_config": {"max_seq_length": "long"}}, "max_seq_length"),
        ({"config_sentence_transformers": {"default_prompt_name": "query"}}, "prompt"),
        ({"config": {"hidden_size": 25}}, "evenly"),
        ({"config": {"hidden_size": 1 << 40}}, "hidden_size"),
        ({"config": {"hidden_size": 60_000, "num_attention_heads": 1}}, "too few numbers"),
        ({"config": {"num_hidden_layers": 3}}, "missing|too few"),
        ({"config": {"num_hidden_layers": 1}}, "no place"),
        ({"config": {"vocab_size": 40}}, "another shape"),
        ({"config": {"vocab_size": 30}}, "tokenizer is not this model's"),
        ({"config": {"max_position_embeddings": -1}}, "positions"),
        ({"config": {"layer_norm_eps": 2}}, "epsilon"),
        ({"config": {"layer_norm_eps": []}}, "layer_norm_eps"),
        ({"config": {"hidden_act": "swish"}}, "activation"),
        ({"config": {"position_embedding_type": "relative_key"}}, "relative_key"),
        ({"config": {"is_decoder": True}}, "is_decoder"),
    ],
)
def test_directories_of_strangers_are_refused(
    files: dict[str, Any], words: str, text_reference: Reference, tmp_path: Path
) -> None:
    folder = edited(text_reference("bert")[1], tmp_path / "edited", **files)
    with pytest.raises(CheckpointError, match=words):
        load_text_encoder(folder)


def test_an_unknown_family_is_named_with_those_that_are_known(text_reference: Reference, tmp_path: Path) -> None:
    folder = edited(text_reference("bert")[1], tmp_path / "edited", config={"model_type": "t5"})
    with pytest.raises(UnknownFamilyError, match=r"(?s)t5.*bert, camembert, roberta, xlm-roberta"):
        load_text_encoder(folder)
    (folder / "tokenizer.json").unlink()
    edited(text_reference("bert")[1], tmp_path / "other")
    (tmp_path / "other" / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError):
        load_text_encoder(tmp_path / "other")


def test_the_first_files_of_bert_are_read(text_reference: Reference, tmp_path: Path) -> None:
    """Norms have TensorFlow's names, and a table of positions' numbers stands among the weights."""
    folder = edited(text_reference("bert")[1], tmp_path / "old")
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): tensor
        for name, tensor in tensors.items()
    }
    renamed["embeddings.position_ids"] = torch.arange(19)[None]
    safetensors.torch.save_file(renamed, folder / "model.safetensors")
    torch.testing.assert_close(
        load_text_encoder(folder).embed(TEXTS), load_text_encoder(text_reference("bert")[1]).embed(TEXTS)
    )


def test_wrong_arguments_are_refused(text_reference: Reference) -> None:
    encoder = load_text_encoder(text_reference("bert")[1])
    with pytest.raises(InvalidInputError, match="empty batch"):
        encoder.embed([])
    with pytest.raises(InvalidInputError, match="list of strings"):
        encoder.encode("a text")
    with pytest.raises(InvalidInputError, match="item 1 is audio"):
        encoder.encode(["a", AudioData(torch.zeros(3).numpy())])
    with pytest.raises(InvalidInputError, match="half a character"):
        encoder.embed(["a \ud800"])
    with pytest.raises(InvalidInputError, match="no room"):
        TextPreprocess(encoder.preprocess.tokenizer, 2)
    with pytest.raises(InvalidInputError, match="long is unknown"):
        TextPreprocess(encoder.preprocess.tokenizer, 9, long="cut")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="too few positions"):
        TextEncoder(encoder.network, TextPreprocess(encoder.preprocess.tokenizer, 20))
    with pytest.raises(InvalidInputError, match="Unknown pooling"):
        PoolingConfig(kinds=("last",))  # type: ignore[arg-type]


def test_a_tokenizer_without_special_tokens_refuses_empty_texts() -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="b"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    preprocess = TextPreprocess(Tokenizer(backend), 3)
    assert [window.tokens for window in preprocess("a b a b")] == [(0, 1, 0), (1, 0, 1)]
    with pytest.raises(InvalidInputError, match="no tokens"):
        preprocess("  ")
