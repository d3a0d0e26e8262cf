"""Camera frames of a session that computes on a device: maps come to the host, and pictures are drawn there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from host_device_backend import HostDeviceBackend
from host_driver import HostDriver
from small_models import a_contract, red_and_blue

import gapcam
from gapcam.camera.captured_frame import CapturedFrame
from gapcam.camera.class_demand import ClassDemand
from gapcam.camera.explain_settings import ExplainSettings
from gapcam.camera.explainer import Explainer


@pytest.mark.parametrize("smoothing_s", [0.0, 0.3])
def test_frames_are_explained_and_drawn_also_when_the_session_is_closed(
    tmp_path: Path, host_library: Path, smoothing_s: float
) -> None:
    driver = HostDriver(host_library)
    path = red_and_blue(tmp_path / "model.onnx", contract=a_contract((12, 16)))
    with driver.active():
        backend, module = HostDeviceBackend(path, driver), driver.module()
    settings = ExplainSettings(smoothing_s=smoothing_s, normalization="minmax", classes=(0, 1))
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    with gapcam.Session(backend, kernels=module) as session:
        explainer = Explainer(session, "door", settings, ClassDemand())
        for number in range(3):  # the averages of a still scene are its maps
            result = session(image)
            assert isinstance(result, gapcam.DeviceResult)
            frame = explainer.explain(CapturedFrame("door", number, image, number / 10, number / 10), result, 1.0)
        maps, boxes = result.maps([0, 1]), [result.boxes(0), result.boxes(1)]
        overlay = result.overlay(1)
    np.testing.assert_allclose(frame.map(0), maps[0], rtol=1e-5)
    np.testing.assert_allclose(frame.map(1), maps[1], rtol=1e-5)
    assert [frame.boxes(0), frame.boxes(1)] == boxes
    drawn = frame.picture(1, boxes=False, caption=False)
    assert np.abs(drawn.astype(int) - overlay).max() <= 3  # a level on a tie: half of a step of jet, rounded
    assert {"upload", "preprocess", "inference", "map", "explain"} <= set(frame.timings_ms)
