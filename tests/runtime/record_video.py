"""A process that records a video until something ends it: `record_video.py NAME.mp4 FPS [GREATEST_BYTES]`.

Noise where the file may not grow beyond so many bytes, else a picture that does not move.

It writes the number of each frame to stdout when the sink has taken it, and at the end how it ended.
"""

from __future__ import annotations

import itertools
import resource
import signal
import sys
import time
from pathlib import Path

from camera_frames import FrameMaker, noise, picture

from gapcam.camera.errors import SinkEndedError
from gapcam.camera.sinks.sink_options import SinkOptions
from gapcam.camera.sinks.video_file import VideoFileSink


def main() -> None:
    path, fps = Path(sys.argv[1]), float(sys.argv[2])
    limited = len(sys.argv) > 3
    if limited:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
    signals: list[int] = []  # a handler that took a lock could wait for what it interrupts
    signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    make = FrameMaker()
    sink = VideoFileSink(path, SinkOptions(min_free_bytes=0, bare=True))
    sink.open()
    try:
        began = time.monotonic()
        for number in itertools.count():
            time.sleep(max(0.0, began + number / fps - time.monotonic()))
            if signals:
                break
            image = noise(number) if limited else picture(0)
            sink.write(make(image, number=number, at=number / fps))
            print(number, flush=True)  # noqa: T201
        ended = "terminated"
    except SinkEndedError as error:
        ended = str(error)
    sink.close()
    sink.close()
    print(ended, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
