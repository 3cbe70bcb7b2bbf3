"""What is saved is read again, by us and by `transformers`."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sensorium.encoders.text import SpecialTokens, Tokenizer

_CHAT = [{"role": "user", "content": "Grüße 漢字"}, {"role": "assistant", "content": ""}]
_TEXTS = ("<|im_start|>user\nhi<|im_end|>", "<think>a</think> <s> [SEP] <unk>", "\n\n\n\n")


def _compared(saved: Tokenizer, directory: Path, texts: tuple[str, ...], *files: str) -> None:
    from transformers import AutoTokenizer

    saved.save(directory)
    for name in files:  # a model's own files beside it change nothing
        (directory / "config.json").write_text(json.dumps({"model_type": name, "architectures": ["X"]}))
    theirs, again = AutoTokenizer.from_pretrained(directory), Tokenizer.from_directory(directory)
    for text in texts:
        ids = saved.encode(text)
        assert theirs(text).input_ids == ids, repr(text)
        assert again.encode(text) == ids, repr(text)
        for skip in (True, False):
            decoded = saved.decode(ids, skip_special=skip)
            assert theirs.decode(ids, skip_special_tokens=skip) == decoded
            assert again.decode(ids, skip_special=skip) == decoded
    for role in ("bos", "eos", "pad", "unk"):
        named = getattr(saved.special, role)  # some classes of transformers have names of their own for the others
        assert getattr(theirs, f"{role}_token") == named or named is None
    assert again.special == saved.special
    assert theirs.chat_template == again.chat_template == saved.chat_template
    assert len(theirs) == again.vocabulary_size == saved.vocabulary_size
    if saved.has_chat_template:
        chat = theirs.apply_chat_template(_CHAT, return_dict=False, add_generation_prompt=True)
        assert chat == again.encode_chat(_CHAT) == saved.encode_chat(_CHAT)


def test_of_a_directory(
    kind: str, tokenizers_by_kind: Callable[[str], Tokenizer], mixed: tuple[str, ...], tmp_path: Path
) -> None:
    _compared(tokenizers_by_kind(kind), tmp_path / "new" / "folder", (*mixed, *_TEXTS))


@pytest.mark.parametrize("name", ["gpt2", "llama3", "qwen2", "llama", "phi3", "gemma", "t5"])
def test_of_gguf_metadata(
    name: str, described: Callable[[str], dict[str, Any]], mixed: tuple[str, ...], tmp_path: Path
) -> None:
    _compared(Tokenizer.from_gguf(described(name)), tmp_path, (*mixed, *_TEXTS))


@pytest.mark.parametrize("model", ["llama", "qwen2", "gemma2", "mistral"])
def test_beside_a_model(
    model: str, tokenizers_by_kind: Callable[[str], Tokenizer], mixed: tuple[str, ...], tmp_path: Path
) -> None:
    kind = {"gemma2": "gemma", "qwen2": "qwen2"}.get(model, "llama")
    _compared(tokenizers_by_kind(kind), tmp_path, (*mixed, *_TEXTS), model)


def test_of_the_default_model(nano: Tokenizer, mixed: tuple[str, ...], tmp_path: Path) -> None:
    _compared(nano, tmp_path, mixed)
    assert Tokenizer.from_directory(tmp_path).stop_ids == nano.stop_ids == {0, 2}


def test_both_templates(trained: Callable[[str], Any], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tools = [{"type": "function", "function": {"name": "clock"}}]
    for usual in ("usual {{ messages[0].content }}", None):
        saved = Tokenizer(trained("gpt2").backend, chat_template=usual, tool_template="tools {{ tools[0].type }}")
        saved.save(tmp_path)
        theirs, again = AutoTokenizer.from_pretrained(tmp_path), Tokenizer.from_directory(tmp_path)
        assert again.render_chat(_CHAT, tools=tools) == "tools function"
        assert theirs.apply_chat_template(_CHAT, tools=tools, tokenize=False) == "tools function"
        assert again.has_chat_template == (usual is not None)
        if usual:
            assert again.render_chat(_CHAT) == theirs.apply_chat_template(_CHAT, tokenize=False) == "usual Grüße 漢字"


def test_the_newer_places_of_templates_are_read(folder: Callable[[str], Path], tmp_path: Path) -> None:
    for file in folder("gpt2").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").write_text("from a file: é\n", encoding="utf-8")
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates" / "tool_use.jinja").write_text("with tools")
    tokenizer = Tokenizer.from_directory(tmp_path)
    assert tokenizer.render_chat(_CHAT) == "from a file: é"  # jinja2 takes the last line's end away
    assert tokenizer.render_chat(_CHAT, tools=[]) == "with tools"
    (tmp_path / "chat_template.jinja").unlink()
    (tmp_path / "chat_template.json").write_text('{"chat_template": "from an older file"}')
    assert Tokenizer.from_directory(tmp_path).render_chat(_CHAT) == "from an older file"


def test_no_template_and_no_roles(trained: Callable[[str], Any], tmp_path: Path) -> None:
    Tokenizer(trained("gpt2").backend, special=SpecialTokens()).save(tmp_path)
    again = Tokenizer.from_directory(tmp_path)
    assert not again.has_chat_template
    assert again.special.bos is None
    assert again.stop_ids == {0, 2}  # known ends of turns


def test_saving_again_and_at_once(tokenizers_by_kind: Callable[[str], Tokenizer], tmp_path: Path) -> None:
    tokenizer = tokenizers_by_kind("bert")
    threads = [threading.Thread(target=tokenizer.save, args=(tmp_path / str(number),)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tokenizer.save(tmp_path / "0")
    contents = {
        tuple((tmp_path / str(number) / name).read_bytes() for name in ("tokenizer.json", "tokenizer_config.json"))
        for number in range(3)
    }
    assert len(contents) == 1
