"""HTML pages: their main text; menus, scripts and the like are left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ....encoders.errors import InvalidInputError
from ..document import Block

__all__ = ["parse_html"]

_LISTS = ("list", "quote", "div", "main", "section")


def parse_html(data: bytes, name: str) -> list[Block]:
    """The blocks of a page's main text, as trafilatura finds it; of all its text if it finds none.

    Raises:
        InvalidInputError: there is no text in it.
    """
    import trafilatura

    found: Any = trafilatura.bare_extraction(data, favor_recall=True, include_comments=False, with_metadata=False)
    blocks = list(_blocks(found.body)) if found is not None and found.body is not None else []
    if not blocks:
        text = trafilatura.html2txt(data)
        blocks = [Block("paragraph", text.strip())] if text and text.strip() else []
    if not blocks:
        raise InvalidInputError(f"{name} holds no text.", given="an HTML page without any", expected="some text")
    return blocks


def _blocks(parent: Any) -> Iterator[Block]:
    for element in parent:
        if not isinstance(element.tag, str):
            continue
        if element.tag in _LISTS and any(child.tag != "item" for child in element):
            yield from _blocks(element)
            continue
        block = _block(element)
        if block is not None:
            yield block


def _block(element: Any) -> Block | None:
    if element.tag == "table":
        rows = (" | ".join(_line(cell) for cell in row.iter("cell")) for row in element.iter("row"))
        text = "\n".join(row for row in rows if row.strip(" |"))
        return Block("table", text) if text else None
    if element.tag == "code":
        text = "".join(element.itertext()).strip("\n")
        return Block("code", text) if text.strip() else None
    if element.tag == "list":
        text = "\n".join(f"- {_line(item)}" for item in element.iter("item") if _line(item))
    else:
        text = _line(element)
    if not text:
        return None
    if element.tag == "head":
        rend = element.get("rend") or "h1"
        return Block("heading", text, level=int(rend[1]) if rend[1:2] in tuple("123456") else 1)
    return Block("paragraph", text)


def _line(element: Any) -> str:
    return " ".join("".join(element.itertext()).split())
