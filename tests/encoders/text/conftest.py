"""Texts and vocabularies that the tokenizer tests share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from sensorium.encoders.text import Tokenizer
from sensorium.fusion.checkpoints.gguf_file import GGUFFile

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


@pytest.fixture(scope="session")
def mixed() -> tuple[str, ...]:
    """Texts of every kind."""
    return MIXED


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
