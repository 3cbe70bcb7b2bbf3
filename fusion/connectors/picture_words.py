"""Pictures as soft words: classifiers over an image's features, read by the decoder through its own embeddings.

An item shows as its kind and then what was recognised, likeliest first::

    photo   Egyptian cat, tiger cat, tabby cat
    drawing fox face, wolf
    shape   teal triangle

where each word is the mean of the embeddings of all words that it could be, weighted with their probabilities
(`VocabularyProjector`).

Legend: B images, T regions, F features of a region, N names, S size of a name's embedding, D hidden size, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...encoders.encoder import Encoder
from ...encoders.media import Media
from .base_connector import BaseConnector
from .layouts import picture_layout
from .picture_choice import COLOURS, KINDS, SHAPES, picture_choice
from .soft_words import SoftWords

__all__ = ["COLOURS", "KINDS", "SHAPES", "PictureHeads", "PictureReading", "PictureWords"]


@dataclass(frozen=True, slots=True)
class PictureReading:
    """What the heads say of B images: probabilities of kind [B, 3], label [B, labels], name [B, N], shape, colour."""

    kind: Tensor
    label: Tensor
    name: Tensor
    shape: Tensor
    colour: Tensor


class PictureHeads(nn.Module):
    """Kind, shape, colour and name of a drawing, from the mean and maximum of an image's region features.

    Names are found by their embeddings (DeViSE; Frome et al., 2013), so that a name without a training picture can
    still be found.

    Args:
        feature_size: F.
        names: embeddings of the names of drawings, float [N, S], normalised.
        width: of the hidden layer.
    """

    def __init__(self, feature_size: int, names: Tensor, *, width: int = 384) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(2 * feature_size)
        self.trunk = nn.Linear(2 * feature_size, width)
        self.kind, self.shape, self.colour = (nn.Linear(width, len(words)) for words in (KINDS, SHAPES, COLOURS))
        self.name = nn.Linear(width, names.shape[1])
        self.sharpness = nn.Parameter(torch.tensor(2.5))
        self.register_buffer("names", names)

    names: Tensor

    def hidden(self, pooled: Tensor) -> Tensor:
        """Pooled features [B, 2F] → [B, width]."""
        return F.gelu(self.trunk(self.norm(pooled)))

    def name_logits(self, hidden: Tensor) -> Tensor:
        """[B, width] → [B, N]: the cosine to each name's embedding, sharpened."""
        return F.normalize(self.name(hidden), dim=-1) @ self.names.to(hidden.dtype).T * self.sharpness.exp()

    def forward(self, features: Tensor, labels: Tensor) -> PictureReading:
        """Region features [B, T, F] and the classifier's logits [B, labels] → probabilities of everything."""
        hidden = self.hidden(torch.cat((features.mean(1), features.amax(1)), dim=-1))
        heads = (self.kind(hidden), labels, self.name_logits(hidden), self.shape(hidden), self.colour(hidden))
        return PictureReading(*(logits.softmax(-1) for logits in heads))


class PictureWords(BaseConnector):
    """The connector.

    Args:
        encoder: gives region features; its classifier, the labels' logits.
        heads: what reads them.
        labels, names: of the encoder's classes, and of drawings.
        spell: the decoder's token ids of a text that stands within a sentence.
        table: the decoder's embeddings [vocabulary, D].
        placeholder: the control token's text that holds the places.
    """

    def __init__(
        self,
        encoder: Encoder,
        heads: PictureHeads,
        *,
        labels: Sequence[str],
        names: Sequence[str],
        spell: Callable[[str], Sequence[int]],
        table: Tensor,
        placeholder: str,
    ) -> None:
        super().__init__("image", placeholder)
        self.encoder, self.heads = encoder, heads.eval()
        self.lists = {"label": labels, "name": names, "kind": KINDS, "shape": SHAPES, "colour": COLOURS}
        self._soft = SoftWords(self.lists, spell, table)
        self._last: tuple[str, Tensor] | None = None

    def layout(self, media: Media) -> str:
        """As many placeholders as the picture has soft words, in a frame that says what they are."""
        return picture_layout(len(self.embed(media)), self.placeholder)

    @torch.inference_mode()
    def embed(self, media: Media) -> Tensor:
        """Soft words [L, D]."""
        if self._last is not None and self._last[0] == media.digest:
            return self._last[1]
        words = self.words(self.read([media]), 0)
        self._last = (media.digest, words)
        return words

    @torch.inference_mode()
    def read(self, batch: Sequence[Media]) -> PictureReading:
        """What the heads say of several pictures."""
        return self.read_features(self.encoder.encode(batch).features)

    @torch.inference_mode()
    def read_features(self, features: Tensor) -> PictureReading:
        """What the heads say of region features [B, T, F]."""
        return self.heads(features, self.encoder.network.logits(features))  # type: ignore[attr-defined]

    def words(self, reading: PictureReading, row: int) -> Tensor:
        """Soft words [L, D] of one picture of a reading."""
        rows = {field.name: getattr(reading, field.name)[row].float().cpu().numpy() for field in fields(reading)}
        return self._soft.sentence(picture_choice(rows))
