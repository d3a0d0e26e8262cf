"""Every peer's map is gapcam's map, on the real network and photographs; else comparing their times says nothing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import gapcam
from gapcam import Session
from gapcam_bench.block import Request
from gapcam_bench.cell import Cell
from gapcam_bench.peers.handwritten import HandWritten
from gapcam_bench.peers.names import BF16, PEERS, cpp_compiler, open_peer
from gapcam_bench.peers.peer_subject import PeerSubject
from gapcam_bench.subjects.pictures import pictures
from gapcam_bench.subjects.protocol import Picture

FRAME = (720, 1280)
EAGER = [name for name, peer in PEERS.items() if not peer.compiles]
COMPILED = [name for name, peer in PEERS.items() if peer.compiles]


@pytest.fixture(scope="module")
def photographs() -> list[Picture]:
    return pictures(None, FRAME, 4)


@pytest.fixture(scope="module")
def session(demo_model: Path) -> Iterator[Session]:
    with gapcam.load(demo_model, device="cpu", threads=1) as session:
        yield session


def opened(name: str, model: Path) -> PeerSubject:
    cell = Cell(subject=name, model=model.name, threads=1, frame=FRAME, work=("overlay",))
    return open_peer(Request(cell=cell, file=str(model)))


def minmax(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return (values - values.min()) / (values.max() - values.min())


def as_given_by(name: str, raw: NDArray[np.float32]) -> NDArray[np.float32]:
    """gapcam's map in the form in which a peer gives it."""
    if name.startswith("torch-cam"):
        return minmax(raw)
    if name.startswith("grad-cam"):  # ReLU, to [0, 1], to the size of the network's input, to [0, 1] again
        return minmax(cv2.resize(minmax(np.maximum(raw, 0)), (224, 224)))
    return raw


def hold_to_gapcam(name: str, model: Path, session: Session, photographs: list[Picture]) -> PeerSubject:
    """Logits, the map before and after what the peer makes of it, and the picture."""
    half = name == BF16
    subject = opened(name, model)
    for picture in photographs:
        expected = session(picture.frame)
        answer = subject.answer(picture)
        logits_error = np.abs(answer.logits - expected.logits).max() / np.abs(expected.logits).max()
        assert logits_error < (0.05 if half else 1e-5), picture.name
        assert answer.logits.argmax() == expected.logits.argmax()
        assert answer.map is not None
        raw = expected.map()
        assert answer.map.shape == raw.shape == (7, 7)
        assert np.corrcoef(answer.map.ravel(), raw.ravel())[0, 1] > (0.998 if half else 0.999999)

        times = subject.run([picture])
        assert list(times.wall) == ["preprocess", "inference", "cam", "overlay"]
        given = np.asarray(subject.heat)
        wanted = as_given_by(name, raw)
        assert given.shape == wanted.shape
        np.testing.assert_allclose(given, wanted, atol=(0.1 if half else 1e-4) * np.abs(wanted).max())
        assert_heat_is_red(subject.picture, picture.frame, minmax(raw))
    return subject


def assert_heat_is_red(drawn: NDArray[np.uint8] | None, frame: NDArray[np.uint8], heat: NDArray[np.float32]) -> None:
    """Where the map is high the picture is red, and blue where it is low, whatever the exact colours."""
    assert drawn is not None
    assert (drawn.shape, drawn.dtype) == (frame.shape, np.uint8)
    gained = drawn.astype(np.float32) - 0.5 * frame
    on_frame = cv2.resize(heat, frame.shape[1::-1])
    red_over_blue = gained[:, :, 2] - gained[:, :, 0]
    assert red_over_blue[on_frame > 0.8].mean() > 40
    assert red_over_blue[on_frame < 0.2].mean() < -40


@pytest.mark.parametrize("name", EAGER)
def test_a_peers_logits_map_and_picture_are_gapcams(
    name: str, demo_model: Path, session: Session, photographs: list[Picture]
) -> None:
    hold_to_gapcam(name, demo_model, session, photographs).close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch.compile looks at it while it traces
@pytest.mark.skipif(cpp_compiler() is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_peers_logits_map_and_picture_are_gapcams(
    name: str, demo_model: Path, session: Session, photographs: list[Picture]
) -> None:
    subject = hold_to_gapcam(name, demo_model, session, photographs)
    assert "compiled all 49 convolutions" in subject.notes[-1]
    subject.close()


def test_what_is_written_by_hand_is_gapcams_picture(
    demo_model: Path, session: Session, photographs: list[Picture]
) -> None:
    """gapcam shrinks a 1080p frame in two steps: the network's input is another one by half a level of 255."""
    explainer = HandWritten(str(demo_model), size=(224, 224), mean=(127,) * 3, std=(128,) * 3)
    for picture in photographs:
        larger = np.asarray(cv2.resize(picture.frame, (1920, 1080), interpolation=cv2.INTER_CUBIC), np.uint8)
        for frame, tolerance in ((picture.frame, 2.0), (larger, 6.0)):
            drawn = explainer(frame).astype(np.float32)
            difference = np.abs(drawn - session(frame).overlay()).mean()
            assert difference < tolerance, picture.name
            assert np.abs(drawn - frame).mean() > 5 * difference


def test_without_an_overlay_a_peer_stops_at_the_map(demo_model: Path, photographs: list[Picture]) -> None:
    cell = Cell(subject="handwritten", model="m", threads=1, frame=FRAME, work=())
    subject = open_peer(Request(cell=cell, file=str(demo_model)))
    assert list(subject.run(photographs[:1]).wall) == ["preprocess", "inference", "cam"]
    assert subject.picture is None
    assert np.asarray(subject.heat).shape == (7, 7)
