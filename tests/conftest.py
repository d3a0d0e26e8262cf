"""What all tests share: the demo's model, exported once for all test processes, and real images."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
# Images with labels and boxes that may not be copied into the project.
DATA = ROOT.parent / "shared" / "data"

# How long an example takes, and how long it takes to make one, is the machine's affair and not the product's.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")

# Who starts the tests in the background, or by nohup, has these ignored, and so would every process that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)  # ignored here, and not by what is started


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config) -> Path:
    """One temporary folder for all test processes, if there are several."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if hasattr(pytestconfig, "workerinput") else own  # of pytest-xdist


@pytest.fixture(scope="session")
def demo_model(shared_folder: Path) -> Path:
    """EfficientNet-Lite0 with its ImageNet weights, as `make demo` exports it."""
    from gapcam_export.demo import export_demo_model

    path = shared_folder / "efficientnet_lite0.onnx"
    with FileLock(f"{path}.lock"):
        if not path.exists():
            export_demo_model(path)
    return path


@pytest.fixture(scope="session")
def cat() -> NDArray[np.uint8]:
    """Scikit-image's photograph of a cat, 300 x 451 x 3 uint8 BGR."""
    from gapcam_export.photographs import photograph

    return photograph("chelsea")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real images; tests that need it are skipped where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"no real images: {DATA} is absent")
    return DATA
