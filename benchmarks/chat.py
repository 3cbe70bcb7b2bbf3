"""Time to the first token of each turn of a chat, with what was read before reused, and without.

    python -m benchmarks.chat [--model nano] [--turns 12]

The answers are the same text in both, forced by the questions' own order; prompts grow by some 70 tokens a turn.
"""

from __future__ import annotations

import argparse

from sensorium import sdk
from sensorium.sdk import PrefixCache

from .measure import print_table, ratio

_QUESTIONS = [
    "Tell me about the history of Rome.",
    "Who was Julius Caesar?",
    "What did he do in Gaul?",
    "How did he die?",
    "Who came after him?",
    "What was the Pax Romana?",
    "Who built the Colosseum?",
    "What did people eat?",
    "How were the roads built?",
    "What language did they speak?",
    "What gods did they have?",
    "When did the empire fall?",
]


def main() -> None:
    """Prints a table of turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--turns", type=int, default=len(_QUESTIONS))
    arguments = parser.parse_args()
    model = sdk.load(arguments.model)
    model.ask("Hello.", max_new_tokens=4)  # what is made at the first use is not measured
    turns = _conversation(model, _QUESTIONS[: arguments.turns])
    rows = []
    cache = PrefixCache()
    for number in range(1, len(turns), 2):
        messages = turns[:number]
        # The answer is part of the next prompt: as long as the one that was drawn, so that its tokens are known.
        cached = model.ask(messages, max_new_tokens=48, prefix_cache=cache)
        plain = model.ask(messages, max_new_tokens=1)
        known = f"{cached.usage.cached_tokens} of {cached.usage.prompt_tokens}"
        times = cached.timings.first_token, plain.timings.first_token
        rows.append((str(number // 2 + 1), known, *(f"{1000 * t:.0f} ms" for t in times), ratio(times[1], times[0])))
    print_table(("turn", "tokens known", "first token", "without reuse", "ratio"), rows)


def _conversation(model: sdk.Model, questions: list[str]) -> list[dict[str, str]]:
    """Questions and the model's own answers in turn."""
    messages: list[dict[str, str]] = []
    for question in questions:
        messages.append({"role": "user", "content": question})
        messages.append({"role": "assistant", "content": model.ask(messages, max_new_tokens=48).text})
    return messages


if __name__ == "__main__":
    main()
