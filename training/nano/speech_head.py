"""Trains the CTC head that reads speech for `nano`.

    python -m sensorium.training.nano.speech_head SENTENCES.txt SPEECH_FOLDER OUT.safetensors

The last hundredth of the sentences is held out. The loss is CTC over units of the decoder's vocabulary, with an
auxiliary CTC over letters that is dropped afterwards.
"""

from __future__ import annotations

import argparse
import json
import math
import string
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...encoders.audio import AudioEncoder
from ...encoders.media import AudioData
from ...fusion.connectors.speech_words import SpeechHead
from .features import kept
from .spelling import Spelling, plain_words

__all__ = ["Utterances", "encoded", "main", "train", "word_distance", "word_errors"]

_LETTERS = {letter: number for number, letter in enumerate(" '" + string.ascii_lowercase, start=1)}
_BATCH = 24


@dataclass(frozen=True)
class Utterances:
    """Features of all utterances one after another, and what was said.

    Attributes:
        features: float16 [sum of lengths, F].
        bounds: where each begins and the last ends.
        words: plain words of each.
    """

    features: Tensor
    bounds: list[int]
    words: list[list[str]]

    def batch(self, numbers: list[int]) -> tuple[Tensor, Tensor]:
        """Features [B, T, F], padded with zeros, and lengths."""
        rows = [self.features[self.bounds[n] : self.bounds[n + 1]].float() for n in numbers]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(row) for row in rows])


def encoded(encoder: AudioEncoder, folder: Path) -> tuple[Tensor, list[int]]:
    """Features of the utterances in a folder that `speech` wrote, and their bounds."""
    lengths = np.load(folder / "lengths.npy").tolist()
    samples = np.memmap(folder / "speech.raw", dtype=np.int16, mode="r")
    rows, bounds, at = [], [0], 0
    for length in lengths:
        sound = AudioData((samples[at : at + length] / np.float32(32767)).astype(np.float32))
        rows.append(encoder.encode([sound]).features[0].half())
        bounds.append(bounds[-1] + len(rows[-1]))
        at += length
    return torch.cat(rows), bounds


def train(head: SpeechHead, data: Utterances, spelling: Spelling, *, epochs: int, rate: float = 2e-3) -> None:
    """Trains in place; prints the loss and the held-out word error rate after every epoch."""
    held_out = max(40, len(data.words) // 100)
    count = len(data.words) - held_out
    steps = epochs * math.ceil(count / _BATCH)
    optimizer = torch.optim.AdamW(head.parameters(), lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1, pct_start=0.1)
    generator = torch.Generator().manual_seed(1)
    begun = time.time()
    for epoch in range(epochs):
        head.train()
        total, batches = 0.0, 0
        for numbers in _batches(data, count, generator):
            loss = _loss(head, data, spelling, numbers)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total, batches = total + loss.item(), batches + 1
        errors = word_errors(head, data, spelling, list(range(count, len(data.words))))
        print(
            f"epoch {epoch}: loss {total / batches:.3f}, held-out WER {errors:.3f}, {time.time() - begun:.0f} s",
            flush=True,
        )


def word_errors(head: SpeechHead, data: Utterances, spelling: Spelling, numbers: list[int]) -> float:
    """Word error rate of greedy decoding."""
    head.eval()
    wrong = said = 0
    with torch.no_grad():
        for number in numbers:
            logs, frames = head(*data.batch([number]))
            best = logs[0, : int(frames[0])].argmax(-1).unique_consecutive()
            heard = spelling.text(best[best > 0].tolist()).split()
            wrong += word_distance(heard, data.words[number])
            said += len(data.words[number])
    return wrong / said


def _batches(data: Utterances, count: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Utterances of like length together, in a random order."""
    noise = torch.rand(count, generator=generator) * 60
    lengths = torch.tensor([data.bounds[n + 1] - data.bounds[n] for n in range(count)])
    order = (lengths + noise).argsort().tolist()
    batches = [order[first : first + _BATCH] for first in range(0, count, _BATCH)]
    for place in torch.randperm(len(batches), generator=generator).tolist():
        yield batches[place]


def _loss(head: SpeechHead, data: Utterances, spelling: Spelling, numbers: list[int]) -> Tensor:
    features, lengths = data.batch(numbers)
    features = _masked(features)
    hidden, frames = head.hidden(features, lengths)
    units = [spelling.spell(data.words[number]) for number in numbers]
    letters = [[_LETTERS[letter] for letter in " ".join(data.words[number])] for number in numbers]
    loss = _ctc(head.units(hidden), units, frames)
    return loss if head.letters is None else loss + 0.5 * _ctc(head.letters(hidden), letters, frames)


def _masked(features: Tensor) -> Tensor:
    """Two spans of each row are blanked (SpecAugment; Park et al., 2019)."""
    for row in features:
        for _ in range(2):
            width = int(torch.randint(0, 16, ()))
            first = int(torch.randint(0, max(1, len(row) - width), ()))
            row[first : first + width] = 0
    return features


def _ctc(logits: Tensor, targets: list[list[int]], frames: Tensor) -> Tensor:
    logs = logits.log_softmax(-1).transpose(0, 1)
    flat = torch.tensor([number for target in targets for number in target])
    lengths = torch.tensor([len(target) for target in targets])
    return F.ctc_loss(logs, flat, frames, lengths, zero_infinity=True)


def word_distance(heard: list[str], said: list[str]) -> int:
    """Levenshtein's distance in words."""
    row = list(range(len(said) + 1))
    for number, word in enumerate(heard, start=1):
        before, row[0] = row[0], number
        for at, other in enumerate(said, start=1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (word != other))
    return row[-1]


def main() -> None:
    """Trains and writes the head."""
    from safetensors.torch import save_file

    from ...encoders.audio import load_audio_encoder
    from ...sdk import load

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sentences", type=Path)
    parser.add_argument("speech", type=Path)
    parser.add_argument("whisper", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--epochs", type=int, default=12)
    arguments = parser.parse_args()
    torch.manual_seed(1)
    sentences = arguments.sentences.read_text(encoding="utf-8").splitlines()
    encoder = load_audio_encoder(arguments.whisper, dtype=torch.bfloat16, trim=True)
    features = kept(arguments.speech / "features.pt", lambda: encoded(encoder, arguments.speech)[0])
    bounds = kept(arguments.speech / "bounds.pt", lambda: _bounds(encoder, arguments.speech)).tolist()
    words = [plain_words(sentence) for sentence in sentences[: len(bounds) - 1]]
    spelling = Spelling(load("nano").tokenizer, sentences)
    head = SpeechHead(encoder.feature_size, len(spelling.units), letters=len(_LETTERS))
    train(head, Utterances(features, bounds, words), spelling, epochs=arguments.epochs)
    weights = {name: value.half().contiguous() for name, value in head.state_dict().items() if "letters" not in name}
    save_file(weights, arguments.out, metadata={"units": json.dumps(spelling.units)})


def _bounds(encoder: AudioEncoder, folder: Path) -> Tensor:
    counts = [encoder.count(length) for length in np.load(folder / "lengths.npy").tolist()]
    return torch.tensor([0, *np.cumsum(counts).tolist()])


if __name__ == "__main__":
    main()
