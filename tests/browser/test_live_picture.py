"""The picture moves, and holds the map that was asked for: it is compared with the session's own overlay."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Page, expect
from watched_camera import WatchedCamera
from watched_page import WAIT_MS, difference, shown_number, shown_picture, wait_for_frames, wait_until_drawn

import gapcam
from gapcam.camera.sources.moving_clock import number_in
from gapcam.camera.sources.source_options import SourceOptions
from gapcam.camera.sources.source_uri import source_from_uri
from gapcam.overlay import COLORMAPS, color_table, draw_boxes

SAME = 4.0
"""Levels of 255 by which a picture may differ from what it was made of: JPEG, and a map drawn before it is scaled."""

Open = Callable[..., Page]
Overlay = Callable[..., NDArray[np.uint8]]


@pytest.fixture(scope="module")
def overlay(session: gapcam.Session, still: NDArray[np.uint8]) -> Overlay:
    """The cat as the session explains it."""
    result = session(still)

    def drawn(target: int | None = None, *, boxes: float | None = 0.2, **look: object) -> NDArray[np.uint8]:
        picture = result.overlay(target, **look)  # type: ignore[arg-type]
        if boxes is not None:
            draw_boxes(picture, result.boxes(target, threshold=boxes))
        return picture

    return drawn


def shows(page: Page, wanted: NDArray[np.uint8], *, within_s: float = 15) -> bool:
    """Whether the page comes to show a picture."""
    for _ in range(int(within_s * 5)):
        if difference(wanted, shown_picture(page)) < SAME:
            return True
        page.wait_for_timeout(200)
    return False


def test_frames_move(camera: WatchedCamera, open_page: Open) -> None:
    page = open_page(camera.url + "#source=cup")
    wait_for_frames(page)
    number, picture = shown_number(page), shown_picture(page)
    wait_for_frames(page, 3)
    assert shown_number(page) > number
    # The twentieth further on is the same again, and there is no telling how long these two lines take.
    assert any(difference(picture, shown_picture(page)) > SAME for _ in range(100))
    wait_until_drawn(page, 20)
    expect(page.locator("#connection-text")).to_have_text("Live")


def test_the_picture_is_of_the_frame_that_it_says(run_camera: Callable[..., WatchedCamera], open_page: Open) -> None:
    pattern = source_from_uri("test://", name="pattern", options=SourceOptions(size=(640, 360), fps=10))
    page = open_page(run_camera([pattern]).url + "#map=false&boxes=false")
    expect(page.locator("#bars button").filter(has_text="analog clock")).to_be_visible(timeout=WAIT_MS)
    for _ in range(3):
        wait_for_frames(page)
        page.get_by_role("button", name="Pause").click()
        picture = cv2.resize(shown_picture(page), (640, 360), interpolation=cv2.INTER_NEAREST)
        assert number_in(picture) == shown_number(page)  # type: ignore[arg-type]
        page.get_by_role("button", name="Go on").click()
    wait_for_frames(page)


def test_the_best_class_is_shown_with_its_map(
    camera: WatchedCamera, open_page: Open, overlay: Overlay, session: gapcam.Session, still: NDArray[np.uint8]
) -> None:
    best = session(still).top[0]
    page = open_page(camera.url)
    assert shows(page, overlay())
    expect(page.locator("#caption-label")).to_have_text(best.label)
    expect(page.locator("#bars button").first).to_contain_text(best.label)
    assert page.locator("#bars button").count() == 5


def test_the_picker_changes_the_map(
    camera: WatchedCamera, open_page: Open, overlay: Overlay, session: gapcam.Session
) -> None:
    target = session.labels.index("goldfish")
    page = open_page(camera.url)
    assert shows(page, overlay())
    assert difference(overlay(), overlay(target)) > 2 * SAME, "the two maps are alike: the test shows nothing"
    page.get_by_role("combobox", name="Map of").fill("goldf")
    page.get_by_role("option", name="goldfish").click()
    assert shows(page, overlay(target))
    expect(page.locator("#caption-label")).to_have_text("goldfish")
    expect(page.locator("#picture")).to_have_attribute("data-class", str(target))
    page.get_by_role("button", name="Follow the best class").click()
    assert shows(page, overlay())


def test_a_click_on_a_bar_picks_its_class(
    camera: WatchedCamera, open_page: Open, session: gapcam.Session, still: NDArray[np.uint8]
) -> None:
    second = session(still).top[1]
    page = open_page(camera.url)
    bar = page.locator("#bars button").nth(1)
    expect(bar).to_contain_text(second.label)
    bar.click()
    expect(page.locator("#picture")).to_have_attribute("data-class", str(second.index))
    expect(bar).to_have_attribute("aria-pressed", "true")
    expect(page.get_by_role("combobox", name="Map of")).to_have_value(second.label)
    bar.click()
    expect(bar).to_have_attribute("aria-pressed", "false")


def test_sliders_and_switches_act(
    camera: WatchedCamera, open_page: Open, overlay: Overlay, still: NDArray[np.uint8]
) -> None:
    page = open_page(camera.url)
    assert shows(page, overlay())
    page.get_by_role("slider", name="Opacity").fill("0.9")
    assert shows(page, overlay(alpha=0.9))
    page.get_by_role("slider", name="Box threshold").fill("0.7")
    assert shows(page, overlay(alpha=0.9, boxes=0.7))
    page.get_by_role("switch", name="Boxes").uncheck()
    assert shows(page, overlay(alpha=0.9, boxes=None))
    page.get_by_role("switch", name="Map").uncheck()
    assert shows(page, still)
    page.get_by_role("button", name="Back to the defaults").click()
    assert shows(page, overlay())


def test_colours_act_and_their_preview_is_theirs(camera: WatchedCamera, open_page: Open, overlay: Overlay) -> None:
    page = open_page(camera.url)
    colours = page.get_by_role("combobox", name="Colours")
    expect(colours).to_have_value("jet")
    assert set(colours.locator("option").evaluate_all("all => all.map(one => one.value)")) == set(COLORMAPS)
    for name in ("viridis", "bone"):
        colours.select_option(name)
        assert shows(page, overlay(colormap=name))
        preview = shown_picture(page, "colors")[0].astype(int)
        assert np.abs(preview - color_table(name)[:, 0]).max() <= 12


def test_every_colour_map_has_its_preview(camera: WatchedCamera, open_page: Open) -> None:
    page = open_page(camera.url)
    for name in COLORMAPS:
        steps = page.evaluate("async name => (await import('./static/colormaps.js')).colorsOf(name)", name)
        table = color_table(name)[:, 0, ::-1]
        places = np.linspace(0, 255, len(steps))
        wanted = np.stack([np.interp(places, range(256), table[:, channel]) for channel in range(3)], axis=1)
        found = [[int(step[place : place + 2], 16) for place in (1, 3, 5)] for step in steps]
        assert np.abs(wanted - found).max() <= 1, name


def test_sources_are_changed(camera: WatchedCamera, open_page: Open, overlay: Overlay) -> None:
    page = open_page(camera.url)
    assert shows(page, overlay())
    page.get_by_role("radio", name="cup").check()
    expect(page.locator("#picture")).to_have_attribute("data-source", "cup")
    assert "source=cup" in page.url
    page.reload()
    expect(page.locator("#picture")).to_have_attribute("data-source", "cup")


def test_a_snapshot_is_a_file_with_that_picture(camera: WatchedCamera, open_page: Open, overlay: Overlay) -> None:
    page = open_page(camera.url + "#colormap=viridis")
    wait_for_frames(page)
    for name in ("Snapshot", "Snapshot as PNG, without loss"):
        with page.expect_download() as saved:
            page.get_by_role("link", name=name, exact=True).click()
        picture = cv2.imread(str(saved.value.path()))
        assert picture is not None
        assert difference(overlay(colormap="viridis"), picture) < SAME, saved.value.suggested_filename
    assert saved.value.suggested_filename.endswith(".png")


def test_a_held_picture_stays_and_is_what_is_saved(camera: WatchedCamera, open_page: Open) -> None:
    page = open_page(camera.url + "#source=cup")
    wait_for_frames(page)
    page.get_by_role("button", name="Pause").click()
    number, held = shown_number(page), shown_picture(page)
    page.wait_for_timeout(700)
    assert shown_number(page) == number
    with page.expect_download() as saved:
        page.get_by_role("link", name="Snapshot", exact=True).click()
    picture = cv2.imread(str(saved.value.path()))
    assert picture is not None
    assert difference(held, picture) < SAME
    assert saved.value.suggested_filename == f"cup-{number}.jpg"
    page.get_by_role("button", name="Go on").click()
    wait_for_frames(page, 2)


def test_a_frame_that_comes_late_is_not_shown_in_place_of_the_held_one(camera: WatchedCamera, open_page: Open) -> None:
    page = open_page(camera.url + "#source=cup")
    page.add_init_script(
        "window.late = []; window.slow = false; const decode = createImageBitmap;"
        "window.createImageBitmap = async (...what) => {"
        " if (window.slow) await new Promise(goOn => late.push(goOn)); return decode(...what); };"
    )
    page.reload()
    wait_for_frames(page)
    page.evaluate("window.slow = true")
    page.wait_for_function("() => late.length", timeout=WAIT_MS)
    page.get_by_role("button", name="Pause").click()
    number = shown_number(page)
    page.evaluate("window.slow = false, late.forEach(goOn => goOn())")
    page.wait_for_timeout(300)
    assert shown_number(page) == number
    page.get_by_role("button", name="Go on").click()
    wait_for_frames(page)
