"""A Jetson's CSI camera: NVIDIA's GStreamer source, read through OpenCV where that has GStreamer."""

from __future__ import annotations

import cv2

from gapcam.camera.sources.opencv_camera import OpenCvCamera, checked_capture
from gapcam.camera.sources.source_options import SourceOptions
from gapcam.errors import BackendError

SIZE, FPS = (1280, 720), 30.0
_FLIPS = {0: 0, 90: 3, 180: 2, 270: 1}
"""nvvidconv's flip-method: 1 is a quarter turn counterclockwise, 3 one clockwise."""


class CsiCamera(OpenCvCamera):
    """`csi://N`.

    Args:
        sensor: its number.
        name: see `Source`.
        options: `size`, `fps`, `rotate`: the Jetson's converter rotates, not the CPU.
    """

    def __init__(self, sensor: int, *, name: str, options: SourceOptions) -> None:
        super().__init__(name=name, uri=f"csi://{sensor}")
        self._sensor, self._options = sensor, options

    def _opened(self) -> cv2.VideoCapture:
        if not opencv_has_gstreamer():
            raise BackendError(
                f"{self.uri} needs an OpenCV with GStreamer, and this one ({cv2.__version__}) has none. JetPack brings "
                "one for the system's Python; PyPI's wheels never have it"
            )
        return checked_capture(
            cv2.VideoCapture(csi_pipeline(self._sensor, self._options), cv2.CAP_GSTREAMER),
            f"{self.uri} does not open: is the camera connected, and does nvargus-daemon run? "
            "(sudo systemctl restart nvargus-daemon)",
        )


def csi_pipeline(sensor: int, options: SourceOptions) -> str:
    """GStreamer's description of the way from the sensor to OpenCV, as `gst-launch-1.0` takes it.

    The sensor's mode is chosen by size and rate; nvvidconv takes the frame out of NVMM memory and rotates it; one that
    nobody has taken makes way for the next (`drop=true max-buffers=1`), so that a frame is never an old one.

    Source: NVIDIA, Jetson Linux Developer Guide, "Accelerated GStreamer".

    Example:
        >>> csi_pipeline(0, SourceOptions(size=(1280, 720), fps=30)).split(" ! ")[0]
        'nvarguscamerasrc sensor-id=0'
    """
    (width, height), fps = options.size or SIZE, options.fps or FPS
    rate = f"{round(fps)}/1" if float(fps).is_integer() else f"{round(fps * 1000)}/1000"
    return " ! ".join(
        [
            f"nvarguscamerasrc sensor-id={sensor}",
            f"video/x-raw(memory:NVMM), width=(int){width}, height=(int){height}, framerate=(fraction){rate}",
            f"nvvidconv flip-method={_FLIPS[options.rotate]}",
            "video/x-raw, format=(string)BGRx",
            "videoconvert",
            "video/x-raw, format=(string)BGR",
            "appsink drop=true max-buffers=1 sync=false",
        ]
    )


def opencv_has_gstreamer() -> bool:
    """Whether this OpenCV was built with it, or finds it as a plugin."""
    return bool(cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER))
