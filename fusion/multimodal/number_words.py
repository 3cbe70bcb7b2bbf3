"""Numbers in English words, as prompts of some models spell them."""

from __future__ import annotations

__all__ = ["number_words"]

_SMALL = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_SMALL += [f"{stem}teen" for stem in ("thir", "four", "fif", "six", "seven", "eigh", "nine")]
_TENS = [f"{stem}ty" for stem in ("twen", "thir", "for", "fif", "six", "seven", "eigh", "nine")]


def number_words(number: int) -> str:
    """A number of 0..999,999: "seven", "forty-two", "one hundred and one", "one thousand, two hundred"."""
    if number < 20:
        return _SMALL[number]
    if number < 100:
        tens, ones = divmod(number, 10)
        return _TENS[tens - 2] + (f"-{_SMALL[ones]}" if ones else "")
    base, unit = (1000, "thousand") if number >= 1000 else (100, "hundred")
    count, rest = divmod(number, base)
    joint = " and " if rest < 100 else ", "
    return f"{number_words(count)} {unit}" + (f"{joint}{number_words(rest)}" if rest else "")
