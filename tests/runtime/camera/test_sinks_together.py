"""Several sinks behind one pipeline: what befalls one is nothing to the others."""

from __future__ import annotations

import json
from pathlib import Path

import av
import pytest
from small_models import a_contract, fake_red_and_blue

import gapcam
from gapcam.camera import Pipeline, source_from_uri
from gapcam.camera.sinks.sink_options import SinkOptions
from gapcam.camera.sinks.sink_uri import sink_from_uri


def test_a_disk_that_is_full_stops_a_recording_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sinks = [
        sink_from_uri(f"{tmp_path}/kept.mp4#min-free=0"),
        sink_from_uri(f"{tmp_path}/ended.mp4#min-free={1 << 60}"),
        sink_from_uri(f"{tmp_path}/lines.jsonl#min-free=0"),
        sink_from_uri(f"{tmp_path}/images/#min-free=0,format=png"),
    ]
    sources = [source_from_uri(f"test://?size=160x120&fps=30&frames=40#name={name}") for name in ("a", "b")]
    with gapcam.Session(fake_red_and_blue(a_contract((16, 16)))) as session:
        pipeline = Pipeline(session, sources, sinks, policy="all")
        pipeline.run()
        status = pipeline.status()
    assert [source.explained for source in status.sources] == [40, 40]
    states = {Path(sink.name).name: (sink.state, sink.written, sink.dropped + sink.failed) for sink in status.sinks}
    assert states == {
        "kept.mp4": ("stopped", 80, 0),
        "ended.mp4": ("ended", 0, 80),
        "lines.jsonl": ("stopped", 80, 0),
        "images": ("stopped", 80, 0),
    }
    assert "are to stay free; nothing more is written there" in caplog.text
    rows = [json.loads(line) for line in (tmp_path / "lines.jsonl").read_text().splitlines()]
    assert sorted((row["source"], row["frame"]) for row in rows) == [(name, n) for name in "ab" for n in range(40)]
    assert len(list((tmp_path / "images").iterdir())) == 80
    videos = sorted(path.name for path in tmp_path.glob("*.mp4"))
    assert len(videos) == 2
    assert videos[1] == "kept.mp4"
    assert videos[0] in ("kept.a.mp4", "kept.b.mp4")  # of whichever source came second: nobody said that there are two
    for name in videos:
        with av.open(str(tmp_path / name)) as container:
            assert sum(1 for _ in container.decode(video=0)) == 40


def test_the_sources_that_are_known_are_in_the_names_of_their_videos(tmp_path: Path) -> None:
    options = SinkOptions(sources=("a", "b"), min_free_bytes=0)
    sources = [source_from_uri(f"test://?size=160x120&fps=30&frames=5#name={name}") for name in ("a", "b")]
    with gapcam.Session(fake_red_and_blue(a_contract((16, 16)))) as session:
        Pipeline(session, sources, [sink_from_uri(f"{tmp_path}/out.mp4", options=options)], policy="all").run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.a.mp4", "out.b.mp4"]
