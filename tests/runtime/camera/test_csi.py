"""The Jetson's pipeline as a string; GStreamer's own parser says whether it is one, where that is installed."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from gapcam.camera.sources.csi import csi_pipeline, opencv_has_gstreamer
from gapcam.camera.sources.source_options import SourceOptions
from gapcam.camera.sources.source_uri import source_from_uri
from gapcam.errors import BackendError

PYTHON = "/usr/bin/python3"
# NVIDIA's two elements are there on a Jetson alone: others with as many pads stand in their place, and the memory
# feature, which they do not have, is left out. What remains is linked and brought to its caps by GStreamer.
PARSE = """
import sys
import gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst
Gst.init(None)
text = sys.argv[1].replace("nvarguscamerasrc sensor-id=", "videotestsrc num-buffers=3 name=sensor")
text = text.replace("nvvidconv flip-method=", "videoconvert name=flip").replace("(memory:NVMM)", "")
text = text.replace("appsink", "appsink name=sink")
pipeline = Gst.parse_launch(text)
pipeline.set_state(Gst.State.PLAYING)
sample = pipeline.get_by_name("sink").emit("pull-sample")
print(sample.get_caps().to_string())
pipeline.set_state(Gst.State.NULL)
"""


def gstreamer_missing() -> str:
    if not Path(PYTHON).exists():
        return f"no {PYTHON} with GStreamer"
    probe = "import gi; gi.require_version('Gst', '1.0'); from gi.repository import Gst; Gst.init(None); "
    probe += (
        "raise SystemExit(any(Gst.ElementFactory.find(n) is None for n in ('videotestsrc','videoconvert','appsink')))"
    )
    ran = subprocess.run([PYTHON, "-I", "-c", probe], capture_output=True)
    return "" if ran.returncode == 0 else "no GStreamer: apt install python3-gi gstreamer1.0-plugins-base"


def test_the_pipeline_is_nvidias() -> None:
    assert csi_pipeline(0, SourceOptions()) == (
        "nvarguscamerasrc sensor-id=0"
        " ! video/x-raw(memory:NVMM), width=(int)1280, height=(int)720, framerate=(fraction)30/1"
        " ! nvvidconv flip-method=0 ! video/x-raw, format=(string)BGRx"
        " ! videoconvert ! video/x-raw, format=(string)BGR ! appsink drop=true max-buffers=1 sync=false"
    )


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"size": (1920, 1080)}, "width=(int)1920, height=(int)1080"),
        ({"fps": 60}, "framerate=(fraction)60/1"),
        ({"fps": 29.97}, "framerate=(fraction)29970/1000"),
        ({"rotate": 90}, "flip-method=3"),  # nvvidconv counts quarter turns counterclockwise
        ({"rotate": 180}, "flip-method=2"),
        ({"rotate": 270}, "flip-method=1"),
    ],
)
def test_what_is_asked_for_is_in_it(options: dict[str, Any], part: str) -> None:
    assert part in csi_pipeline(2, SourceOptions(**options))
    assert "sensor-id=2" in csi_pipeline(2, SourceOptions(**options))


@pytest.mark.parametrize("options", [{}, {"size": (640, 480), "fps": 29.97, "rotate": 90}])
def test_gstreamer_parses_links_and_runs_it(options: dict[str, Any]) -> None:
    if missing := gstreamer_missing():
        pytest.skip(missing)
    pipeline = csi_pipeline(0, SourceOptions(**options))
    ran = subprocess.run([PYTHON, "-I", "-c", PARSE, pipeline], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    width, height = options.get("size", (1280, 720))
    assert "format=(string)BGR" in ran.stdout
    assert f"width=(int){width}, height=(int){height}" in ran.stdout
    assert f"framerate=(fraction){'2997/100' if options else '30/1'}" in ran.stdout


@pytest.mark.skipif(opencv_has_gstreamer(), reason="this OpenCV has GStreamer")
def test_an_opencv_without_gstreamer_is_said_in_a_line() -> None:
    with pytest.raises(BackendError, match="csi://0 needs an OpenCV with GStreamer") as raised:
        source_from_uri("csi://0").open()
    assert "\n" not in str(raised.value)
