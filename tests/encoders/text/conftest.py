"""Texts, small trained tokenizers of every kind, and the default model's tokenizer, which the text tests share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sensorium.encoders.text import Tokenizer
from sensorium.fusion.checkpoints.gguf_file import GGUFFile
from tokenizers import (
    AddedToken,
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from tokenizers import Tokenizer as Backend

# Every kind of text that tokenizers are known to disagree on.
MIXED = (
    "",
    " ",
    "Hello, world! It's 1,234,567.89 o'clock; we'LL see. ",
    "def f(x):\n\treturn x ** 2  # square\n\n\n    pass\r\n",
    "👩‍👩‍👧‍👦 family, 👍🏽 thumbs, 🇫🇷 flag, ❤️",
    "漢字かな交じり文、ｆｕｌｌｗｉｄｔｈ。 한국어 텍스트입니다.",
    "مرحبا بالعالم ١٢٣ שלום",
    "e\u0301a\u0300 n\u0303 combining \u0915\u094d\u0937\u093f",
    "a  b   c    d\t\te \n \n  f\u00a0g\u3000h",
    "\x00\x01\x7f\x1b[0m \u200b\u200d\ufeff\ufffd",
    "0123456789 10 100 1000 ½ Ⅻ ²³ 007",
    "x" * 300 + " " + "ab" * 200 + "-" * 130,
    "    leading and trailing    ",
    "don't DON'T 'twas 'S we'Re I'M",
    "mixed漢字and👍latin123abc_ABC-def/ghi.jkl@mno#pqr",
    "Ünïcödé ſtraße ﬁ ﬂ Ǆ İi ı",
    "https://example.org/a?b=c&d=%20#e <tag attr='v'>text</tag>",
    "\n\n\n",
    "'''\"\"\"```${}[]()<>|\\/~^",
)
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TURNS = ("<|im_start|>", "<|im_end|>")
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPACE = "▁"


@dataclass(frozen=True)
class Trained:
    """A small tokenizer, and the roles of its control tokens."""

    backend: Backend
    roles: Mapping[str, str]


def _byte_level(*cuts: Any, normalizer: Any = None, regex: bool = True, ignore_merges: bool = False) -> Backend:
    backend = Backend(models.BPE(ignore_merges=ignore_merges))
    last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*cuts, last]) if cuts else last
    backend.decoder = decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", *TURNS]
    trainer = trainers.BpeTrainer(
        vocab_size=701, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(MIXED * 2, trainer)
    return backend


def _split(expression: str) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Split(Regex(expression), behavior="isolated")


def _gpt2() -> Trained:
    return Trained(_byte_level(), {"bos": "<|endoftext|>", "eos": "<|endoftext|>"})


def _smollm() -> Trained:
    digits = pre_tokenizers.Digits(individual_digits=True)
    return Trained(_byte_level(digits), {"bos": TURNS[0], "eos": TURNS[1], "unk": "<|endoftext|>"})


def _llama3() -> Trained:
    backend = _byte_level(_split(_LLAMA3), regex=False, ignore_merges=True)
    begin = ("<|endoftext|>", backend.token_to_id("<|endoftext|>"))
    backend.post_processor = processors.TemplateProcessing(single=f"{begin[0]} $A", special_tokens=[begin])
    return Trained(backend, {"bos": begin[0], "eos": TURNS[1]})


def _qwen2() -> Trained:
    cuts = _split(_LLAMA3.replace("{1,3}", ""))
    backend = _byte_level(cuts, normalizer=normalizers.NFC(), regex=False)
    backend.add_tokens([AddedToken("<think>", normalized=False), AddedToken("\n\n\n\n", normalized=False)])
    return Trained(backend, {"eos": TURNS[1], "pad": "<|endoftext|>"})


def _sentencepiece(*, scheme: str, strip: bool, normalizer: Any = None) -> Backend:
    backend = Backend(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if normalizer is not None:
        backend.normalizer = normalizer
    backend.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, prepend_scheme="always", split=True)
    special = ["<unk>", "<s>", "</s>", *BYTES, *TURNS]
    trainer = trainers.BpeTrainer(vocab_size=599, special_tokens=special, limit_alphabet=97, show_progress=False)
    backend.train_from_iterator(MIXED * 2, trainer)
    data = json.loads(backend.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] not in BYTES]
    backend = Backend.from_str(json.dumps(data))
    # Words are cut for training alone, where whole lines would become tokens.
    backend.pre_tokenizer = None if normalizer else pre_tokenizers.Metaspace(_SPACE, prepend_scheme=scheme, split=False)  # type: ignore[assignment]
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if strip else steps)
    begin = ("<s>", backend.token_to_id("<s>"))
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[begin])
    return backend


_SPM_ROLES = {"bos": "<s>", "eos": "</s>", "unk": "<unk>"}


def _llama() -> Trained:
    return Trained(_sentencepiece(scheme="first", strip=True), _SPM_ROLES)


def _phi3() -> Trained:
    steps = [normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)]
    return Trained(_sentencepiece(scheme="", strip=True, normalizer=normalizers.Sequence(steps)), _SPM_ROLES)


def _gemma() -> Trained:
    return Trained(_sentencepiece(scheme="never", strip=False), _SPM_ROLES)


def _unigram(*, fallback: bool) -> Backend:
    backend = Backend(models.Unigram())
    backend.normalizer = normalizers.NFKC() if fallback else normalizers.Sequence([])
    spaces = pre_tokenizers.Metaspace(_SPACE, prepend_scheme="always", split=True)
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), spaces])
    special = ["<pad>", "</s>", "<unk>", *(BYTES if fallback else ()), *TURNS]
    trainer = trainers.UnigramTrainer(
        vocab_size=499 if fallback else 307, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator([text.replace("x" * 9, "x") for text in MIXED] * 2, trainer)
    data = json.loads(backend.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] not in BYTES]
    data["model"]["byte_fallback"] = fallback
    backend = Backend.from_str(json.dumps(data))
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    backend.decoder = decoders.Sequence(steps) if fallback else decoders.Metaspace(_SPACE, prepend_scheme="always")
    end = ("</s>", backend.token_to_id("</s>"))
    backend.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[end])
    return backend


def _t5() -> Trained:
    return Trained(_unigram(fallback=False), {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"})


def _unigram_bytes() -> Trained:
    return Trained(_unigram(fallback=True), {"eos": "</s>", "unk": "<unk>", "pad": "<pad>"})


def _bert() -> Trained:
    backend = Backend(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer(lowercase=True)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *TURNS]
    trainer = trainers.WordPieceTrainer(vocab_size=401, special_tokens=special, show_progress=False)
    backend.train_from_iterator(MIXED * 2, trainer)
    borders = [(name, backend.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    backend.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=borders)
    return Trained(backend, {"unk": "[UNK]", "pad": "[PAD]", "sep": "[SEP]", "cls": "[CLS]", "mask": "[MASK]"})


_KINDS: dict[str, Callable[[], Trained]] = {
    "gpt2": _gpt2,
    "smollm": _smollm,
    "llama3": _llama3,
    "qwen2": _qwen2,
    "llama": _llama,
    "phi3": _phi3,
    "gemma": _gemma,
    "t5": _t5,
    "unigram_bytes": _unigram_bytes,
    "bert": _bert,
}


@pytest.fixture(scope="session")
def mixed() -> tuple[str, ...]:
    """Texts of every kind."""
    return MIXED


@pytest.fixture(params=_KINDS, scope="session")
def kind(request: pytest.FixtureRequest) -> str:
    """The name of each kind of tokenizer in turn."""
    return request.param


@pytest.fixture(scope="session")
def trained() -> Callable[[str], Trained]:
    """A small tokenizer of a kind; a copy, for tests to change."""
    known: dict[str, tuple[str, Mapping[str, str]]] = {}

    def train(kind: str) -> Trained:
        if kind not in known:
            new = _KINDS[kind]()
            known[kind] = new.backend.to_str(), new.roles
        text, roles = known[kind]
        return Trained(Backend.from_str(text), roles)

    return train


@pytest.fixture(scope="session")
def folder(trained: Callable[[str], Trained], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The Hugging Face directory of a kind of tokenizer; not to be changed."""
    known: dict[str, Path] = {}

    def write(kind: str) -> Path:
        if kind not in known:
            known[kind] = tmp_path_factory.mktemp(kind)
            new = trained(kind)
            new.backend.save(str(known[kind] / "tokenizer.json"))
            config = {f"{role}_token": text for role, text in new.roles.items()}
            config |= {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": CHATML}
            (known[kind] / "tokenizer_config.json").write_text(json.dumps(config))
        return known[kind]

    return write


@pytest.fixture(scope="session")
def tokenizers_by_kind(folder: Callable[[str], Path]) -> Callable[[str], Tokenizer]:
    """Our tokenizer of a kind."""
    known: dict[str, Tokenizer] = {}

    def load(kind: str) -> Tokenizer:
        if kind not in known:
            known[kind] = Tokenizer.from_directory(folder(kind))
        return known[kind]

    return load


@pytest.fixture(scope="session")
def nano_metadata(nano_file: Path) -> Mapping[str, Any]:
    """The metadata of the default model's GGUF file."""
    file = GGUFFile(nano_file)
    file.close()
    return file.metadata


@pytest.fixture(scope="session")
def nano(nano_metadata: Mapping[str, Any]) -> Tokenizer:
    """The default model's tokenizer."""
    return Tokenizer.from_gguf(nano_metadata)


_GGUF_KINDS = {  # architecture, model, name of the pre-tokenizer
    "gpt2": ("gpt2", "gpt2", "gpt-2"),
    "smollm": ("llama", "gpt2", "smollm"),
    "llama3": ("llama", "gpt2", "llama-bpe"),
    "qwen2": ("qwen2", "gpt2", "qwen2"),
    "llama": ("llama", "llama", "default"),
    "phi3": ("phi3", "llama", "default"),
    "gemma": ("gemma2", "llama", "default"),
    "t5": ("t5", "t5", "default"),
    "unigram_bytes": ("t5", "t5", "default"),
}
_GGUF_ROLES = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


@pytest.fixture(scope="session")
def described(trained: Callable[[str], Trained]) -> Callable[[str], dict[str, Any]]:
    """The metadata with which a GGUF file describes a kind of tokenizer; a copy, for tests to change."""

    def describe(kind: str) -> dict[str, Any]:
        new = trained(kind)
        architecture, model, pre = _GGUF_KINDS[kind]
        data = json.loads(new.backend.to_str())
        vocabulary = data["model"]["vocab"]
        ids = vocabulary if isinstance(vocabulary, dict) else {text: at for at, (text, _) in enumerate(vocabulary)}
        added = {token["content"]: token for token in data["added_tokens"]}
        ids = ids | {text: token["id"] for text, token in added.items()}
        tokens = sorted(ids, key=ids.__getitem__)
        kinds = [3 if text in added and added[text]["special"] else 4 if text in added else 1 for text in tokens]
        kinds = [6 if text in BYTES else kind for text, kind in zip(tokens, kinds, strict=True)]
        values: dict[str, Any] = {"model": model, "pre": pre, "tokens": tokens, "token_type": kinds}
        if model == "gpt2":
            values["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
        elif model == "llama":
            values["scores"] = [0.0 if kind != 1 else -float(at) for at, kind in enumerate(kinds)]
        else:
            values["scores"] = [score for _, score in vocabulary]
        values |= {f"{_GGUF_ROLES[role]}_token_id": ids[text] for role, text in new.roles.items()}
        metadata = {f"tokenizer.ggml.{name}": value for name, value in values.items()}
        return metadata | {"general.architecture": architecture, "tokenizer.chat_template": CHATML}

    return describe
