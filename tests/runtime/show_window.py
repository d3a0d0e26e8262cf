"""A process that shows two sources in windows until somebody ends it: `show_window.py COLOR`, which is B,G,R.

It says on stdout when the windows are there, and at the end why it ended.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time

import numpy as np
from camera_frames import FrameMaker

from gapcam.camera.errors import StopRequestedError
from gapcam.camera.sinks.sink_options import SinkOptions
from gapcam.camera.sinks.window import WindowSink
from gapcam.errors import GapcamError


def show() -> None:
    """As a pipeline does, all in one thread that is not the main one."""
    try:
        sink = WindowSink(SinkOptions(bare=True))
    except GapcamError as error:
        print(f"error: {error}", flush=True)  # noqa: T201
        return
    make = FrameMaker()
    image = np.full((240, 320, 3), [int(level) for level in sys.argv[1].split(",")], np.uint8)
    sink.open()
    try:
        for number in itertools.count():
            for source in ("front", "back"):
                sink.write(make(image, number=number, source=source))
            if number == 10:
                print("shown", flush=True)  # noqa: T201
            time.sleep(0.02)
    except StopRequestedError as error:
        print(f"stopped: {error}", flush=True)  # noqa: T201
    sink.close()
    sink.close()


if __name__ == "__main__":
    thread = threading.Thread(target=show)
    thread.start()
    thread.join()
