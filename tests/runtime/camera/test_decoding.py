"""However the decoder is set, a damaged frame is seen and not shown."""

from __future__ import annotations

import random
from pathlib import Path

import av
import pytest
from camera_servers.stamped_frame import read_stamp
from written_videos import write_video

from gapcam.camera.errors import BrokenFrameError
from gapcam.camera.sources.decoding import Decoding, pixels


@pytest.mark.parametrize(
    ("low_delay", "frame_threads"), [(True, False), (False, False), (False, True)], ids=["stream", "one", "threads"]
)
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_damage_is_seen(tmp_path: Path, codec: str, low_delay: bool, frame_threads: bool) -> None:
    path = write_video(tmp_path / "a.mkv", 90, codec=codec)
    data = bytearray(path.read_bytes())
    chance = random.Random(1)  # noqa: S311 - damage
    for _ in range(12):
        at = chance.randrange(4000, len(data) - 2000)
        data[at : at + 8] = chance.randbytes(8)
    path.write_bytes(data)
    shown, broken, going = [], 0, True
    with av.open(str(path)) as container:
        decoding = Decoding(container, low_delay=low_delay, frame_threads=frame_threads)
        while going:
            try:
                going = decoding.next_packet()
                for frame in decoding.frames():
                    stamp = read_stamp(pixels(frame))
                    shown.append(None if stamp is None else stamp.number)
            except BrokenFrameError:  # noqa: PERF203 - one a packet
                broken += 1
        decoding.close()
    assert broken >= 3
    assert len(shown) >= 20
    assert None not in shown
