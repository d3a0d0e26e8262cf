"""Map and overlay of a frame on a CUDA device, with the device's time of each: events around what is queued."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gapcam.cuda.device_result import DeviceResult
from gapcam.cuda.driver import Driver, Event
from gapcam.cuda.frame_copy import download_frame
from gapcam.look import Look
from gapcam_bench.subjects.protocol import StageTimes

if TYPE_CHECKING:
    from gapcam.cuda.post_process import CudaPostProcess
    from gapcam.frame import Frame


class DeviceDrawing:
    """What a `gapcam.DeviceResult` does for a map and an overlay, each step by itself.

    The steps are the result's own, from the inside: its verbs wait for the device before they return, and an event that
    is recorded afterwards would measure the wait. A device's time is from the first thing that a step queues to its
    last, with the gaps in which the device had nothing to do because the host had not come so far.

    What goes to the host is the map, a few kilobytes, and the picture, some megabytes. By the host's clock, the map's
    download is "device-to-host", and the picture's is part of "overlay", so that a stage means the same with and
    without an overlay. By the device's clock, "overlay" is the kernels alone and "device-to-host" is the picture's
    download; the map's has no events.

    Args:
        driver: of the device. Call everything inside `driver.active()`, the constructor too.
    """

    def __init__(self, driver: Driver) -> None:
        self._begin: Event = driver.event(timing=True)
        self._end: Event = driver.event(timing=True)
        self._downloaded: Event = driver.event(timing=True)
        self._driver = driver

    def map(self, result: DeviceResult, index: int, times: StageTimes) -> None:
        """Compute a class's map; it stays on the device, and the result keeps it."""
        post = _post(result)
        with times.timed("cam"), post._bench() as bench:
            self._begin.record(bench.stream)
            post._device_map(bench, index, False)
            self._end.record(bench.stream)
        times.add_device("cam", self._end.milliseconds_since(self._begin))

    def overlay(self, result: DeviceResult, index: int, times: StageTimes, out: Frame) -> None:
        """Draw the map over the frame, and bring the picture to the host.

        Args:
            result: whose map was computed.
            index: of the class.
            times: "overlay"; of the device also "device-to-host".
            out: H x W x 3 uint8 BGR.

        Raises:
            CannotDrawError: the frame is one that the kernels do not draw.
        """
        post = _post(result)
        with times.timed("overlay"), post._bench() as bench:
            one = post._device_map(bench, index, False)
            self._begin.record(bench.stream)
            drawn = bench.overlay(one, post._frame, post._placement, Look(), None)
            self._end.record(bench.stream)
            download_frame(drawn, out, self._driver, bench.stream)
            self._downloaded.record(bench.stream)
        times.add_device("overlay", self._end.milliseconds_since(self._begin))
        times.add_device("device-to-host", self._downloaded.milliseconds_since(self._end))

    def download_map(self, result: DeviceResult, index: int, times: StageTimes) -> None:
        """Bring a map that was computed to the host: "device-to-host" by the host's clock."""
        with times.timed("device-to-host"):
            result.map(index)


def _post(result: DeviceResult) -> CudaPostProcess:
    return result._device
