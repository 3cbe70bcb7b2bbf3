"""`nano`'s bundle with media: its size, the start of a process up to the first token, whole answers, and memory.

    python -m benchmarks.media_bundle [--quant int4] [--rounds 5] [--bundle DIRECTORY]

Every run is a process of its own; the best of the rounds counts. The photo is scikit-image's ``coffee.png``, the speech
the recording in ``tests/data``, the clip a pan over the photo. A process that is asked three times, with text first,
shows what both kinds of prompts take together.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from .measure import in_own_process, peak_memory, print_table

_SPEECH = Path(__file__).resolve().parent.parent / "tests" / "data" / "speech.flac"
_RUNS = (("text",), ("image",), ("audio",), ("video",), ("text", "image", "audio"))


def main() -> None:
    """Prints one table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quant", default="int4")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--bundle", type=Path, help="one that was exported before")
    parser.add_argument("--cold", nargs="+", metavar="DIRECTORY KIND", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.cold:
        print(json.dumps(_cold(Path(arguments.cold[0]), arguments.cold[1:])))
        return
    if arguments.bundle is not None:
        _measure(arguments.bundle, arguments.rounds)
        return
    from sensorium import sdk

    with tempfile.TemporaryDirectory() as folder:
        sdk.export("nano", Path(folder) / "bundle", quant=arguments.quant)
        _measure(Path(folder) / "bundle", arguments.rounds)


def _measure(bundle: Path, rounds: int) -> None:
    size = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    print(f"{size / 1e6:.1f} MB\n")
    rows = []
    for kinds in _RUNS:
        runs = [in_own_process("benchmarks.media_bundle", "--cold", str(bundle), *kinds) for _ in range(rounds)]
        first = min(run["first"] + run["seconds"] - run["inside"] for run in runs)
        whole = min(run["seconds"] for run in runs)
        memory = min(run["peak"] for run in runs)
        rows.append(
            (", ".join(kinds), f"{first:.2f} s", f"{whole:.2f} s", f"{memory / 1e6:.0f} MB", runs[0]["texts"][-1])
        )
    header = (
        "asked about",
        "process start to the first token",
        "to the end of all answers",
        "peak memory",
        "last answer",
    )
    print_table(header, rows)


def _cold(bundle: Path, kinds: list[str]) -> dict[str, object]:
    """Questions in a fresh process: seconds from here to the first token of the first, and to the end of all."""
    begun = time.perf_counter()
    from sensorium import sdk

    model = sdk.load(bundle)
    asked = {"text": _text, "image": _image, "audio": _audio, "video": _video}
    texts: list[str] = []
    first = 0.0
    for kind in kinds:
        answer = model.stream(*asked[kind](), max_new_tokens=24)
        for _ in answer:
            first = first or time.perf_counter() - begun
        texts.append(answer.result.text)
    return {"first": first, "inside": time.perf_counter() - begun, "texts": texts, "peak": peak_memory()}


def _text() -> tuple[object, ...]:
    return ("What is the capital of France?",)


def _image() -> tuple[object, ...]:
    from sensorium import sdk

    return ("What is in this picture?", sdk.Image(_photo()))


def _photo() -> Path:
    from importlib.util import find_spec

    spec = find_spec("skimage")  # found, not imported: it would count as ours
    assert spec is not None and spec.origin is not None, "scikit-image holds the photo"
    return Path(spec.origin).parent / "data" / "coffee.png"


def _audio() -> tuple[object, ...]:
    from sensorium import sdk

    return ("Transcribe the speech.", sdk.Audio(_SPEECH))


def _video() -> tuple[object, ...]:
    """Eight frames of 240 x 200 pixels; four seconds in which a camera pans over the photo."""
    import numpy as np
    from sensorium import sdk

    photo = sdk.Image(_photo()).data.pixels
    frames = np.stack([photo[100:300, 12 * number : 12 * number + 240] for number in range(8)])
    return ("What happens in the clip?", sdk.Video(frames, timestamps=[number / 2 for number in range(8)]))


if __name__ == "__main__":
    main()
