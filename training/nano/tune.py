"""Tunes `nano`'s adapter: the decoder learns to answer about soft words, and nothing of it changes for plain text.

    python -m sensorium.training.nano.tune EMOJI_PACKAGE FEATURES SENTENCES.txt OUT.safetensors --minutes 20

Low-rank weights on the output projections of attention and MLP; the loss is on the answers alone. What no other task
teaches, whether a word of the question stands among the words of a picture, is learned from such questions alone first
(``--others 0 --shapes 1 --happenings 0``): among other tasks its few tokens are lost.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...encoders.image import imagenet_labels
from ...encoders.media import Modality
from ...encoders.text import MediaText, Tokenizer
from ...fusion.adapter import adapter_parameters, add_adapter
from ...fusion.connectors.clip_choice import COUNTS, EVENTS
from ...fusion.connectors.layouts import MARKED_FROM, clip_layout, picture_layout, speech_layout
from ...fusion.connectors.nano import PLACEHOLDERS, SCALE, TARGETS, nano_connectors
from ...fusion.connectors.picture_words import COLOURS, SHAPES, PictureReading, PictureWords
from ...fusion.connectors.soft_words import SoftWords
from ...fusion.decoder import Decoder
from ...sdk import load
from ...sdk.hub import resolve_part
from .picture_heads import drawing_examples, shape_examples
from .pictures import emoji
from .questions import Drawer, Item, Sample, sample
from .ragged import Layer, layer, ragged_logits

__all__ = ["Keep", "SampleEmbedder", "batches", "main", "train"]

_DRAWN, _TOKENS = 64, 2000  # samples at once, and tokens of a batch
_RANK = 16
_RATE = 1e-3
_LONG = 40  # tokens of a batch's longest answer; the loss of longer ones is told apart


def main() -> None:
    """Trains for the given time and writes the adapter."""
    from safetensors.torch import load_file, save_file

    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("package", "features", "sentences", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--begin", type=Path, help="the adapter to go on from; that of the card if not given")
    parser.add_argument("--others", type=int, default=1, help="how often the eight other tasks come in a round")
    parser.add_argument("--shapes", type=int, default=2, help="questions about shapes that come in a round")
    parser.add_argument("--happenings", type=int, default=3, help="questions about what happens in clips, likewise")
    parser.add_argument("--speeches", type=int, default=0, help="long recordings to be transcribed, likewise")
    parser.add_argument(
        "--keep", type=float, default=10, help="minutes after which what is learned is written each time"
    )
    arguments = parser.parse_args()
    torch.manual_seed(1)
    model = load("nano", engine="torch")  # in bfloat16 where the processor computes in it
    decoder: Decoder = model.engine.decoder  # type: ignore[attr-defined]
    connectors = nano_connectors(decoder, model.tokenizer, lambda role: resolve_part("nano", role))
    pictures: Any = connectors["image"]()
    shares = {name: getattr(arguments, name) for name in ("others", "shapes", "happenings", "speeches")}
    drawer = replace(_drawer(pictures, arguments), **shares)
    decoder.requires_grad_(False)
    known = model.engine.adapter  # type: ignore[attr-defined]
    switch = known or add_adapter(decoder, "nano", targets=TARGETS, rank=_RANK, scale=SCALE)
    begin = load_file(arguments.begin) if arguments.begin else {}
    for name, parameter in adapter_parameters(decoder).items():
        parent, _, child = name.rpartition(".")
        value = begin[name] if begin else parameter
        setattr(decoder.get_submodule(parent), child, torch.nn.Parameter(value.float()))

    def save() -> None:
        weights = {name: value.detach().bfloat16().contiguous() for name, value in adapter_parameters(decoder).items()}
        save_file(weights, arguments.out, metadata={"scale": json.dumps(SCALE)})

    keep = Keep(save, arguments.keep * 60)
    with switch.set_to(True):
        train(decoder, model.tokenizer, pictures, drawer, seconds=arguments.minutes * 60, keep=keep)
    save()


@dataclass
class Keep:
    """Writes what is learned, so that an early end loses little.

    Args:
        save: writes it.
        seconds: from one time to the next.
    """

    save: Callable[[], None]
    seconds: float
    times: int = 0

    def __call__(self, elapsed: float) -> None:
        """Writes if it is time again, so many seconds after the beginning."""
        if elapsed >= (self.times + 1) * self.seconds:
            self.times = int(elapsed // self.seconds)
            self.save()


def train(
    decoder: Decoder, tokenizer: Tokenizer, pictures: PictureWords, drawer: Drawer, *, seconds: float, keep: Keep
) -> None:
    """Trains the adapter in place until the time is over; in its last third the rate falls to zero."""
    parameters = list(adapter_parameters(decoder).values())
    embedder = SampleEmbedder(decoder, tokenizer, pictures)
    compiled = torch.compile(layer, dynamic=True)
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.0)
    drawn = batches(embedder, drawer)
    begun, step, means = time.time(), 0, {True: 0.0, False: 0.0}
    while (done := (time.time() - begun) / seconds) < 1:
        rate = _RATE * min(1.0, (step + 1) / 10, 3 * (1 - done))
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = next(drawn)
        logits, targets = _answered(decoder, rows, compiled)
        loss = F.cross_entropy(logits, targets)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        long = max(len(answer) for _, answer in rows) > _LONG
        means[long], step = 0.9 * means[long] + 0.1 * loss.item() if means[long] else loss.item(), step + 1
        keep(elapsed := time.time() - begun)
        if step % 10 == 0:
            print(f"step {step}, {elapsed:.0f} s: loss {means[False]:.4f}, long {means[True]:.4f}", flush=True)


def batches(
    embedder: SampleEmbedder, drawer: Drawer, *, samples: int = _DRAWN, tokens: int = _TOKENS
) -> Iterator[list[tuple[Tensor, list[int]]]]:
    """Rows about as long as one another, and their answers: long answers do not drown short ones.

    Args:
        embedder, drawer: of the samples.
        samples: drawn at once and sorted by length.
        tokens: of a batch at most, if it has more than one row.
    """
    while True:
        rows = sorted((embedder(sample(drawer)) for _ in range(samples)), key=lambda row: len(row[0]))
        found, filled = [[]], 0
        for row in rows:
            filled += len(row[0])
            if filled > tokens and found[-1]:
                found.append([])
                filled = len(row[0])
            found[-1].append(row)
        drawer.draw.shuffle(found)
        yield from found


class SampleEmbedder:
    """Samples as the decoder reads them.

    Args:
        decoder, tokenizer: of the model.
        pictures: its connector.
    """

    def __init__(self, decoder: Decoder, tokenizer: Tokenizer, pictures: PictureWords) -> None:
        self._tokenizer, self._pictures = tokenizer, pictures
        self._table = decoder.model.embed_tokens.weight
        self._soft = SoftWords({"event": EVENTS, "count": COUNTS}, self._spell, self._table)

    @torch.no_grad()
    def __call__(self, one: Sample) -> tuple[Tensor, list[int]]:
        """Embeddings [T, D] of prompt and answer, and the answer's tokens, the ending one included, at their end."""
        tokenizer = self._tokenizer
        shown = [self._shown(part) for part in one.parts if isinstance(part, Item)]
        kinds = [part.kind for part in one.parts if isinstance(part, Item)]
        media = [MediaText(kind, "", layout) for kind, (layout, _) in zip(kinds, shown, strict=True)]
        content = [
            {"type": "text", "text": part} if isinstance(part, str) else {"type": part.kind} for part in one.parts
        ]
        prompt = tokenizer.encode_media_chat([{"role": "user", "content": content}], media)
        end = tokenizer.eos_id
        assert end is not None, "the decoder ends its answers with a token"
        answer = [*tokenizer.encode(one.answer, add_special=False), end]
        holders = torch.tensor([tokenizer.token_id(text) or -1 for text in PLACEHOLDERS.values()])
        tokens = torch.tensor([*prompt, *answer])
        out = self._table[tokens].clone()
        out[torch.isin(tokens, holders)] = torch.cat([embedded for _, embedded in shown]).to(out)
        return out, answer

    def _spell(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special=False, parse_special=False)

    def _shown(self, item: Item) -> tuple[str, Tensor]:
        """Layout and embeddings, as the connectors of `nano` give them."""
        kind: Modality = item.kind  # type: ignore[assignment]
        heard = [(begin, self._spell(text)) for begin, text in item.segments or ((0.0, item.text),)]
        said = [token for _, tokens in heard for token in tokens]
        places = [(begin, len(tokens)) for begin, tokens in heard]
        marked = places[-1][0] > MARKED_FROM
        speech = speech_layout(places, PLACEHOLDERS[kind], marked=marked), self._table[said]
        if kind == "audio":
            return speech
        words = [self._pictures.words(reading, 0) for reading in item.readings]
        if kind == "image":
            return picture_layout(len(words[0]), PLACEHOLDERS[kind]), words[0]
        assert item.things is not None, "a clip's things are counted"
        things = self._soft("count", item.things)
        entries = list(zip(item.seconds, words, strict=True))
        entries += [(event.seconds, self._soft("event", event.probabilities)) for event in item.events]
        entries.sort(key=lambda entry: entry[0])
        layout = clip_layout(len(things), [(at, len(shown)) for at, shown in entries], PLACEHOLDERS[kind])
        embedded = torch.cat([things, *(shown for _, shown in entries)])
        return (f"{layout} {speech[0]}", torch.cat((embedded, speech[1]))) if said else (layout, embedded)


def _answered(decoder: Decoder, rows: list[tuple[Tensor, list[int]]], layer: Layer) -> tuple[Tensor, Tensor]:
    """Logits [N, V] of the N tokens of all answers, and these tokens int64 [N]."""
    embeddings = [row for row, _ in rows]
    lengths = [len(answer) for _, answer in rows]
    # Each row keeps the position from which its answer begins.
    alike = min(_common(embeddings), *(len(row) - count - 1 for row, count in zip(embeddings, lengths, strict=True)))
    logits = ragged_logits(decoder, embeddings[0][:alike], [row[alike:] for row in embeddings], lengths, layer=layer)
    return logits.float(), torch.tensor([token for _, answer in rows for token in answer])


def _common(rows: Sequence[Tensor]) -> int:
    """How many embeddings all rows [T, D] begin with."""
    short = min(map(len, rows))
    same = torch.stack([(row[:short] == rows[0][:short]).all(1) for row in rows]).all(0)
    return int(same.int().cumprod(0).sum())


def _drawer(pictures: PictureWords, arguments: argparse.Namespace) -> Drawer:
    """Draws from cached features of training pictures and from sentences."""
    heads = pictures.heads
    emojis = emoji(arguments.package)

    def read(pooled: Tensor) -> PictureReading:
        hidden = heads.hidden(pooled[None].float())
        labels = torch.full((1, len(imagenet_labels())), 1.0)
        values = (heads.kind(hidden), labels, heads.name_logits(hidden), heads.shape(hidden), heads.colour(hidden))
        return PictureReading(*(logits.softmax(-1) for logits in values))

    def load_features(name: str) -> Tensor:
        return torch.load(arguments.features / f"{name}.pt", weights_only=True)

    drawn = drawing_examples(emojis, load_features("emoji_0"), held_out=False)
    shapes = shape_examples("train", load_features("vqa_train"))
    told = ((shapes.shape >= 0) & (shapes.colour >= 0)).nonzero()[:, 0].tolist()

    @torch.no_grad()
    def drawing(draw: random.Random) -> tuple[PictureReading, int]:
        row = draw.randrange(len(drawn.pooled))
        return read(drawn.pooled[row]), int(drawn.name[row])

    @torch.no_grad()
    def shape(draw: random.Random) -> tuple[PictureReading, str, str]:
        row = draw.choice(told)
        return read(shapes.pooled[row]), SHAPES[int(shapes.shape[row])], COLOURS[int(shapes.colour[row])]

    sentences = arguments.sentences.read_text(encoding="utf-8").splitlines()
    return Drawer(list(imagenet_labels()), [one.name for one in emojis], drawing, shape, sentences)


if __name__ == "__main__":
    main()
