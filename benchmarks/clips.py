"""What `nano` sees happen: questions about held-out drawn clips, of which it is known what moves, appears and is there.

    python -m benchmarks.clips EMOJI_PACKAGE [--clips 150]

The sprites are emoji whose names are held out from training; the grounds and ways are new.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from sensorium import sdk
from sensorium.training.nano.clips import scene
from sensorium.training.nano.pictures import emoji, is_held_out

from .measure import print_table

_NUMBERS = ("no", "one", "two", "three", "four")


def main() -> None:
    """Prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("package", type=Path)
    parser.add_argument("--clips", type=int, default=150)
    arguments = parser.parse_args()
    model = sdk.load("nano")
    pictures = [one.path for one in emoji(arguments.package) if is_held_out(one.name)]
    tasks = {"direction": [0, 0], "appearance": [0, 0], "scene change to 0.5 s": [0, 0], "count": [0, 0]}
    for seed in range(2_000_000, 2_000_000 + arguments.clips):
        clip, facts = scene(pictures, seed)
        video = sdk.Video(clip.frames, timestamps=clip.timestamps.tolist())
        questions = [("count", "How many things are in the clip?", _NUMBERS[facts.things])]
        if facts.event.startswith("moving"):
            questions.append(("direction", "Which way does it move?", facts.event.split()[-1]))
        elif facts.event == "scene change":
            answer = model.ask("When does the scene change?", video, max_new_tokens=32).text
            told = re.search(r"(\d+):(\d+\.\d)", answer)
            at = float(clip.timestamps[facts.pair + 1])
            tasks["scene change to 0.5 s"][0] += bool(told and abs(int(told[1]) * 60 + float(told[2]) - at) <= 0.5)
            tasks["scene change to 0.5 s"][1] += 1
        else:
            word = {"appearing": "appears", "disappearing": "disappears"}.get(facts.event, "nothing")
            questions.append(("appearance", "What happens in the clip?", word))
        for task, question, expected in questions:
            words = model.ask(question, video, max_new_tokens=16).text.lower().replace(".", "").split()
            tasks[task][0] += expected in words
            tasks[task][1] += 1
    print_table(("task", "right", "of", "share"), [(t, n, of, f"{n / max(of, 1):.1%}") for t, (n, of) in tasks.items()])


if __name__ == "__main__":
    main()
