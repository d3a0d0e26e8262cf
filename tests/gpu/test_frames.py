"""A frame's whole path on the device, with every kernel, against the NumPy reference."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from engine_on_driver import EngineOnDriver
from gpu_machine import is_host
from nv12_overlay import blend_nv12
from small_models import a_contract, red_and_blue

import gapcam
from gapcam.cam import normalize
from gapcam.cuda.driver import Driver
from gapcam.geometry import place
from gapcam.upsample import seen_part

INPUT = (14, 18)
RESIZES = ("squash", "crop", "letterbox")


def model(folder: Path, **preprocessing: object) -> Path:
    return red_and_blue(folder / "model.onnx", contract=a_contract(size=INPUT, **preprocessing))


def smooth_frame(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Colours that change slowly: what rounding does to one pixel does not make another class the best."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return np.asarray(cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


@pytest.mark.parametrize("resize", RESIZES)
def test_results_are_those_of_the_reference(driver: Driver, tmp_path: Path, resize: str) -> None:
    path = model(tmp_path, resize=resize)
    with gapcam.Session(EngineOnDriver(path, driver)) as session, gapcam.load(path, device="cpu") as reference:
        for seed, (height, width) in enumerate([(61, 83), (14, 18), (240, 320), (9, 200)]):
            frame = smooth_frame(height, width, seed)
            got, expected = session(frame), reference(frame)
            assert [each.label for each in got.top] == [each.label for each in expected.top]
            assert got.top[0].score == pytest.approx(expected.top[0].score, abs=0.01)
            for label in ("red", "blue"):
                # the reference rounds pixels to 8 bits between its steps; weights are up to some units
                assert np.abs(got.map(label) - expected.map(label)).max() < 0.05
                assert np.abs(got.heatmap(label) - expected.heatmap(label)).max() < 0.05
            assert got.overlay().shape == frame.shape
            assert np.array_equal(got.frame, frame)


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("frame_format", ["bgr", "bgra"])
def test_a_frame_graph_draws_what_the_reference_draws(
    driver: Driver, tmp_path: Path, resize: str, frame_format: str
) -> None:
    """With the same features in both, the overlays differ by a grey level at most. Replayed, it takes the new frame."""
    path = model(tmp_path, resize=resize)
    frame = smooth_frame(61, 84)
    with gapcam.load(path, device="cpu") as reference:
        image = gapcam.preprocess(frame, reference.contract.preprocessing)[None]
        expected = reference(frame)
        overlay = expected.overlay(alpha=0.4, colormap="turbo")
        backend = EngineOnDriver(path, driver, recorded=image)
        alpha = np.random.default_rng(1).integers(0, 256, (61, 84, 1), np.uint8)
        given = frame if frame_format == "bgr" else np.concatenate([frame, alpha], axis=2)
        with gapcam.Session(backend) as session:
            graph = session.frame_graph(
                61,
                84,
                format=frame_format,
                topk=2,
                alpha=0.4,
                colormap="turbo",  # type: ignore[arg-type]
            )
            assert graph.captured == driver.has_graphs, graph.why_not_captured
            for flipped in (False, True, False):
                result = graph(np.ascontiguousarray(given[::-1]) if flipped else given)
                assert [each.label for each in result.top] == [each.label for each in expected.top]
                for number, prediction in enumerate(result.top):
                    assert np.allclose(result.maps[number], expected.map(prediction.label), atol=1e-4)
                drawn = result.overlay
                assert isinstance(drawn, np.ndarray)
                if not flipped:
                    assert np.abs(drawn[..., :3].astype(int) - overlay).max() <= 1
                if frame_format == "bgra":
                    assert np.array_equal(drawn[..., 3:], alpha[::-1] if flipped else alpha)
            graph.close()


@pytest.mark.parametrize("resize", RESIZES)
def test_a_frame_graph_draws_on_nv12(driver: Driver, tmp_path: Path, resize: str) -> None:
    path = model(tmp_path, resize=resize)
    frame = np.random.default_rng(3).integers(0, 256, (66, 60), np.uint8)
    bgr = np.asarray(cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_NV12), np.uint8)
    with gapcam.load(path, device="cpu") as reference:
        how = reference.contract.preprocessing
        expected = reference(bgr)
        placement = place((44, 60), how)
        heat = normalize(seen_part(expected.map(), INPUT, placement))
        wanted = blend_nv12(frame, heat, placement, alpha=0.4, colormap="viridis")
        backend = EngineOnDriver(path, driver, recorded=gapcam.preprocess(bgr, how)[None])
    with gapcam.Session(backend) as session:
        graph = session.frame_graph(44, 60, format="nv12", alpha=0.4, colormap="viridis")
        drawn = graph(frame).overlay
        assert isinstance(drawn, np.ndarray)
        assert np.abs(drawn.astype(int) - wanted).max() <= 1
        graph.close()


def test_several_threads_share_a_session(driver: Driver, tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    path = model(tmp_path)
    frames = [smooth_frame(40 + 2 * i, 60, seed=i) for i in range(8)]
    with gapcam.Session(EngineOnDriver(path, driver)) as session:
        alone = [session(frame) for frame in frames]
        labels, overlays = [result.top[0].label for result in alone], [result.overlay() for result in alone]
        with ThreadPoolExecutor(4) as pool:
            together = list(pool.map(lambda frame: (session(frame).top[0].label, session(frame).overlay()), frames * 3))
    for number, (label, overlay) in enumerate(together):
        assert label == labels[number % 8]
        assert np.array_equal(overlay, overlays[number % 8])


def test_torch_and_gapcam_share_memory(driver: Driver, tmp_path: Path) -> None:
    if is_host(driver):
        pytest.skip("PyTorch needs a GPU")
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no CUDA device")
    frame = smooth_frame(61, 83)
    with gapcam.Session(EngineOnDriver(model(tmp_path), driver)) as session:
        result = session(torch.from_numpy(frame).cuda())
        assert np.array_equal(result.frame, frame)
        assert result.top[0].label == session(frame).top[0].label
        heatmap = torch.as_tensor(result.heatmap_on_device(), device="cuda")
        assert np.array_equal(heatmap.cpu().numpy(), result.heatmap())
