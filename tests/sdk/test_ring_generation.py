"""The default model continues a long text that two and three processes share, as one process does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

WORKER = Path(__file__).with_name("ring_generation_worker.py")


@pytest.mark.slow
@pytest.mark.timeout(900)  # a busy machine
def test_a_shared_text_is_continued_with_the_same_tokens(
    in_processes: Callable[..., list[Any]], root: Path, tmp_path: Path
) -> None:
    """The text repeats itself, so that what follows is to be found thousands of tokens before, on another rank."""
    found = in_processes(WORKER, 3, str(root / "LICENSE"), tmp_path)
    alone = found[2][0]
    assert alone["prompt"] >= 4_000 and len(alone["tokens"]) == 8
    for shared in (found[0][0], found[1][0], *(rank[1] for rank in found)):
        assert shared["tokens"] == alone["tokens"]
        np.testing.assert_allclose(shared["logprobs"], alone["logprobs"], atol=2e-4)
