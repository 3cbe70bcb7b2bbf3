"""Texts that exports are calibrated and measured on; all were written for this project."""

from __future__ import annotations

from importlib import resources

__all__ = ["CALIBRATION", "EVALUATION", "QUESTIONS", "text"]

#: Prose, code, lists, letters, sums: what input features matter is measured on it.
CALIBRATION = "calibration.txt"
#: A story that nothing is calibrated on: perplexity and divergence are measured on it.
EVALUATION = "evaluation.txt"
#: A question a line: what goldens are made from, and answers compared on.
QUESTIONS = "questions.txt"


def text(name: str) -> str:
    """One of the texts."""
    return (resources.files(__name__) / name).read_text(encoding="utf-8")
