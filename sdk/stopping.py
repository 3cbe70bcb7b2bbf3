"""Stop texts, found across the borders of tokens."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["StopText"]


class StopText:
    """Lets text through up to the first stop text that is complete; of two that end together, up to the longer one.

    So it does not matter in which pieces the text comes. What could still become a stop text is held back, so that
    nothing has to be taken back.

    Attributes:
        found: the stop text that ended the answer, or None.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """The part of the text so far that is certain to belong to the answer."""
        if not self._stops or self.found is not None:
            return "" if self.found is not None else text
        self._held += text
        places = [(at + len(stop), at, stop) for stop in self._stops if (at := self._held.find(stop)) >= 0]
        if places:
            _, at, self.found = min(places)
            passed, self._held = self._held[:at], ""
            return passed
        keep = self._open()
        passed = self._held[: len(self._held) - keep]
        self._held = self._held[len(self._held) - keep :]
        return passed

    def finish(self) -> str:
        """What was held back, once no more text comes."""
        held, self._held = self._held, ""
        return held

    def _open(self) -> int:
        """How many characters at the end may be the beginning of a stop text."""
        longest = min(len(self._held), max(map(len, self._stops)) - 1)
        for size in range(longest, 0, -1):
            end = self._held[-size:]
            if any(stop.startswith(end) for stop in self._stops):
                return size
        return 0
