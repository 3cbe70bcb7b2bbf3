"""Sounds of a bundle that a tower reads window by window, as embeddings.

Legend: N samples, M mel bins, F frames of 10 ms, W frames of a window, L embeddings of a window, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...encoders.errors import CheckpointError, EngineError, SensoriumError
from ...encoders.media import AudioData, Media
from ...encoders.storage import shortened
from ...fusion.connectors.base_connector import BaseConnector
from ...fusion.multimodal.sound_windows import SoundPlan, SoundWindow
from .sounds import log_power

__all__ = ["ExportedSounds", "ExportedStandIns", "read_sound_plan"]

_MOST = 1 << 15  # of every number of a plan
_RANGE, _SHIFT = 8.0, 4.0  # log10 units that are kept below the loudest, and by which they are moved and shrunk

Floats = NDArray[np.float32]


class ExportedSounds(BaseConnector):
    """The connector.

    Args:
        spectrum: session of the graph that computes spectrograms.
        tower: session of the graph of the tower and its projector.
        plan: how sounds pass through it.
        placeholder: the control token's text that holds a place.
        mark: what the chat template writes for a sound.
        around: what stands before and after a sound's places.

    Raises:
        CheckpointError: the tower's graph does not fit the plan.
    """

    def __init__(
        self,
        spectrum: Any,
        tower: Any,
        plan: SoundPlan,
        placeholder: str,
        *,
        mark: str,
        around: tuple[str, str],
    ) -> None:
        super().__init__("audio", placeholder, mark)
        self._spectrum, self._tower, self._plan, self._around = spectrum, tower, plan, around
        given = {value.name: value.shape[-1] for value in tower.get_inputs()}
        expected = {"mel": plan.window_frames, "frames": 1, "attended": 1}
        if given != expected:
            raise CheckpointError("The tower's graph does not fit its sounds.", given=given, expected=expected)

    def layout(self, media: Media) -> str:
        """As many placeholders as the sound has embeddings."""
        assert isinstance(media, AudioData), "the plan gives a sound to the sounds' connector"
        before, after = self._around
        return before + self.placeholder * self._plan.count(len(media.samples)) + after

    def embed(self, media: Media) -> Floats:
        """Embeddings [count, D].

        Raises:
            EngineError: a graph failed.
        """
        assert isinstance(media, AudioData), "the plan gives a sound to the sounds' connector"
        windows = self._plan.windows(len(media.samples))
        power = log_power(self._spectrum, media.samples, windows[-1].first + windows[-1].frames)
        mel = (np.maximum(power, power.max() - np.float32(_RANGE)) + np.float32(_SHIFT)) / np.float32(_SHIFT)
        return np.concatenate([self._window(mel, window) for window in windows])

    def _window(self, mel: Floats, window: SoundWindow) -> Floats:
        part = np.zeros((len(mel), self._plan.window_frames), np.float32)
        part[:, : window.frames] = mel[:, window.first : window.first + window.frames]
        lengths = {"frames": window.computed, "attended": window.attended}
        inputs = {"mel": part} | {name: np.array([length], np.int64) for name, length in lengths.items()}
        try:
            return self._tower.run(None, inputs)[0][window.begin : window.end]
        except Exception as error:  # onnxruntime's own classes derive from nothing narrower
            raise EngineError("The graph that hears failed.", given=str(error)[:300]) from error


class ExportedStandIns(ExportedSounds):
    """The connector of a model that has no embedding for its placeholder (Ultravox).

    Args:
        stand_in: the text of the token that plans show in its place.
        parts, options: as of `ExportedSounds`.
    """

    def __init__(self, stand_in: str, *parts: Any, **options: Any) -> None:
        super().__init__(*parts, **options)
        self._stand_in = stand_in

    @property
    def stand_in(self) -> str:
        """The token's text that plans show."""
        return self._stand_in


def read_sound_plan(raw: Mapping[str, Any]) -> SoundPlan:
    """How a bundle's sounds pass through its tower.

    Args:
        raw: what the bundle says: the fields of a `SoundPlan`.

    Raises:
        CheckpointError: it does not say it.
    """
    try:
        if not all(isinstance(value, int) and 0 <= value <= _MOST for value in dict(raw).values()):
            raise ValueError(f"windows by {shortened(dict(raw))}")
        plan = SoundPlan(**raw)
        if plan.group < 1 or plan.window_frames < 2:
            raise ValueError(f"groups of {plan.group}")
        plan.count(1)  # refuses what contradicts itself
    except (TypeError, ValueError, SensoriumError) as error:
        raise CheckpointError("The bundle does not say how sounds are read.", given=str(error)) from error
    return plan
