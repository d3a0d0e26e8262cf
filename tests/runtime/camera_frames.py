"""Explained frames for tests of sinks: real ones, of a small model's real session."""

from __future__ import annotations

import cv2
import numpy as np
from small_models import a_contract, fake_red_and_blue

import gapcam
from gapcam.camera.captured_frame import CapturedFrame
from gapcam.camera.class_demand import ClassDemand
from gapcam.camera.event import Event
from gapcam.camera.explain_settings import ExplainSettings
from gapcam.camera.explained_frame import ExplainedFrame
from gapcam.camera.explainer import Explainer

BEGAN = 1_800_000_000.0
"""Unix seconds of the first frame."""
LONG_AGO = -1e6
"""When it was taken, by the monotonic clock: nothing is cut short because it is later than now."""


class FrameMaker:
    """Explains pictures with two classes, "red" and "blue", without an average over time.

    Args:
        labels: of these classes.
    """

    def __init__(self, labels: tuple[str, str] = ("red", "blue")) -> None:
        self._session = gapcam.Session(fake_red_and_blue(a_contract((16, 16), labels)))
        self._explainers: dict[str, Explainer] = {}

    def __call__(
        self,
        image: np.ndarray | None = None,
        *,
        number: int = 0,
        at: float | None = None,
        source: str = "cam",
        position_s: float | None = None,
        events: tuple[str, ...] = (),
    ) -> ExplainedFrame:
        """Explain an image, taken `at` seconds after the beginning, on which classes of these labels enter."""
        image = picture(number) if image is None else image
        at = number / 10 if at is None else at
        captured = CapturedFrame(source, number, image, LONG_AGO + at, BEGAN + at, position_s)
        settings = ExplainSettings(smoothing_s=0, gap_s=1e9)
        explainer = self._explainers.setdefault(source, Explainer(self._session, source, settings, ClassDemand()))
        frame = explainer.explain(captured, self._session(image), wait_ms=1.0)
        happened = tuple(Event("enters", source, number, captured.time, 0, label, 0.75) for label in events)
        return ExplainedFrame(**{name: getattr(frame, name) for name in _ARGUMENTS} | {"events": happened})

    def close(self) -> None:
        """Close the session."""
        self._session.close()


_ARGUMENTS = [name for name, field in ExplainedFrame.__dataclass_fields__.items() if field.init]


def picture(number: int, height: int = 120, width: int = 160) -> np.ndarray:
    """H x W x 3 uint8 BGR: a red disc that moves on a grey gradient. The number says where it is."""
    ground = np.linspace(30, 200, width, dtype=np.uint8)[None, :, None]
    image = np.broadcast_to(ground, (height, width, 3)).copy()
    centre = (width // 8 + 5 * number % (3 * width // 4), height // 2)
    return cv2.circle(image, centre, height // 6, (20, 20, 220), cv2.FILLED)


def noise(number: int, height: int = 120, width: int = 160) -> np.ndarray:
    """H x W x 3 uint8 BGR that no codec makes small."""
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)
