"""The iOS example's sources are Swift, as far as a parser can tell: they are neither compiled nor run."""

from __future__ import annotations

from pathlib import Path

import pytest

IOS = Path(__file__).resolve().parent.parent.parent / "examples" / "ios"


def mistakes(source: bytes) -> list[str]:
    """Where a source is not Swift: the line, and what stands there."""
    tree_sitter = pytest.importorskip("tree_sitter", reason="needs tree-sitter and tree-sitter-swift of PyPI")
    swift = pytest.importorskip("tree_sitter_swift", reason="needs tree-sitter and tree-sitter-swift of PyPI")
    nodes = [tree_sitter.Parser(tree_sitter.Language(swift.language())).parse(source).root_node]
    found = []
    while nodes:
        node = nodes.pop()
        nodes += node.children
        if node.is_error or node.is_missing:
            found.append(f"{node.start_point[0] + 1}: {node.text[:60]!r}")
    return found


@pytest.mark.parametrize("path", sorted(IOS.rglob("*.swift")), ids=lambda path: path.name)
def test_sources_are_swift(path: Path) -> None:
    assert mistakes(path.read_bytes()) == []


@pytest.mark.parametrize(
    "source", [b"func read(_ tokens: [Int] -> Int { 1 }", b"let x = [1, 2", b"guard let y else { return"]
)
def test_mistakes_are_found(source: bytes) -> None:
    assert mistakes(source)
