"""Tests of the page in a real Chromium. They are skipped, by name, where there is none; `make test-browser` gets it.

Every page is watched: what it writes on its console, what its security policy refuses and what it asks of another
origin fails its test, unless the test says that it is to be expected. Pictures of it are kept in out/browser.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))  # pytest's importlib mode finds no helpers beside the tests

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright
from shown_pictures import ShownPictures
from watched_camera import WatchedCamera
from watched_page import COUNT_DRAWN, REPORT_VIOLATIONS, WAIT_MS

import gapcam
from gapcam_export.photographs import photograph

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "out" / "browser"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SIZE = (640, 360)

cv2.setNumThreads(1)
expect.set_options(timeout=WAIT_MS)


@pytest.fixture(scope="session", autouse=True)
def _need_chromium() -> None:
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here: apt install chromium, or make test-browser")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One for all tests."""
    # Chromium's sandbox does not start for root, nor in most containers.
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def session(request: pytest.FixtureRequest) -> Iterator[gapcam.Session]:
    """EfficientNet-Lite0: the one that `make demo` exported, or exported now."""
    made = ROOT / "out" / "demo" / "model.onnx"
    model = made if made.exists() else request.getfixturevalue("demo_model")
    with gapcam.load(model, device="cpu") as session:
        yield session


@pytest.fixture(scope="session")
def still(cat: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A photograph of a cat, 360 x 640 x 3 uint8 BGR."""
    height = 451 * SIZE[1] // SIZE[0]
    return cv2.resize(cat[:height], SIZE, interpolation=cv2.INTER_CUBIC)  # type: ignore[return-value]


@pytest.fixture(scope="session")
def moving() -> list[NDArray[np.uint8]]:
    """A photograph of a cup that moves, 20 pictures."""
    cup = cv2.resize(photograph("coffee"), (SIZE[0] + 200, SIZE[1]))
    return [np.ascontiguousarray(cup[:, way : way + SIZE[0]]) for way in range(0, 200, 10)]


@pytest.fixture(scope="session")
def camera(
    session: gapcam.Session, still: NDArray[np.uint8], moving: list[NDArray[np.uint8]]
) -> Iterator[WatchedCamera]:
    """A camera that everybody may watch: "cat", which stands still, and "cup", which moves."""
    with WatchedCamera(session, [ShownPictures("cat", [still]), ShownPictures("cup", moving)]) as camera:
        yield camera


@pytest.fixture
def run_camera(session: gapcam.Session) -> Iterator[Callable[..., WatchedCamera]]:
    """Run a camera of a test's own, until its pages have been closed."""
    with ExitStack() as cameras:
        yield lambda *what, **how: cameras.enter_context(WatchedCamera(session, *what, **how))


@pytest.fixture
def expected() -> list[str]:
    """What the page may write on its console in this test, as regular expressions."""
    return []


@pytest.fixture
def open_page(
    browser: Browser,
    expected: list[str],
    run_camera: Callable[..., WatchedCamera],  # noqa: ARG001 - cameras end after pages
) -> Iterator[Callable[..., Page]]:
    """Open a page of an address in a context of its own; what it does wrong fails the test at its end."""
    contexts: list[BrowserContext] = []
    wrong: list[str] = []

    def opened(
        url: str, *, width: int = 1440, height: int = 900, color_scheme: str = "light", **options: object
    ) -> Page:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=color_scheme,  # type: ignore[arg-type]
            **options,  # type: ignore[arg-type]
        )
        contexts.append(context)
        page = context.new_page()
        page.add_init_script(REPORT_VIOLATIONS)
        page.add_init_script(COUNT_DRAWN)
        origin = re.match(r"\w+://[^/]+", url)
        assert origin is not None
        page.on("console", lambda said: wrong.append(f"console: {said.text}") if said.type != "log" else None)
        page.on("pageerror", lambda error: wrong.append(f"error: {error.stack or error}"))
        own = (origin[0] + "/", "blob:" + origin[0], "data:")
        page.on("request", lambda asked: None if asked.url.startswith(own) else wrong.append(f"asked {asked.url}"))
        page.on(
            "websocket",
            lambda socket: (
                None
                if socket.url.startswith(own[0].replace("http", "ws", 1))
                else wrong.append(f"connected {socket.url}")
            ),
        )
        page.goto(url)
        return page

    yield opened
    for context in contexts:
        context.close()
    unexpected = [line for line in wrong if not any(re.search(pattern, line) for pattern in expected)]
    assert not unexpected, unexpected


@pytest.fixture(scope="session")
def keep() -> Callable[..., None]:
    """Keep a picture of a page in out/browser, for people to look at."""
    FOLDER.mkdir(parents=True, exist_ok=True)

    def kept(page: Page, name: str, *, whole: bool = True) -> None:
        page.screenshot(path=FOLDER / f"{name}.png", full_page=whole)

    return kept
