"""What stands beside the picture is said of that very picture: of its source, its class, its frame, its time."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
from camera_servers.server_process import lasting_port
from numpy.typing import NDArray
from playwright.sync_api import Page, expect
from shown_pictures import ShownPictures
from watched_camera import WatchedCamera
from watched_page import WAIT_MS, shown_number, shown_picture, wait_for_frames, wait_until_drawn

import gapcam

Open = Callable[..., Page]
Run = Callable[..., WatchedCamera]
Picture = NDArray[np.uint8]
Keep = Callable[..., None]


def unplugged(name: str, picture: Picture) -> ShownPictures:
    """A source that has never given a frame."""
    source = ShownPictures(name, [picture])
    source.unplug()
    return source


def test_a_source_without_a_picture_shows_no_other_ones(
    run_camera: Run, still: Picture, open_page: Open, keep: Keep
) -> None:
    cellar = unplugged("cellar", still)
    page = open_page(run_camera([ShownPictures("cat", [still]), cellar]).url)
    snapshot = page.get_by_role("link", name="Snapshot", exact=True)
    expect(snapshot).to_be_enabled(timeout=WAIT_MS)
    wait_for_frames(page, 3)
    assert shown_picture(page).any()
    page.get_by_role("radio", name="cellar (lost)").check()
    expect(page.locator("#waiting")).to_have_text("No picture of \u2068cellar\u2069 yet")
    page.wait_for_timeout(1500)
    assert not shown_picture(page).any()
    assert shown_number(page) == -1
    expect(page.locator("#caption")).to_be_hidden()
    expect(page.locator("#bars li")).to_have_count(0)
    for figure in ("age", "age-p50", "age-max", "total-p50"):
        expect(page.locator(f"#{figure}")).to_have_text("\u2013")
    expect(page.locator("#age-rows tr, #stage-rows tr")).to_have_count(0)
    expect(snapshot).to_be_disabled()
    assert snapshot.get_attribute("href") is None
    keep(page, "desktop-source-without-a-picture")
    cellar.plug_in()
    wait_for_frames(page)
    expect(page.locator("#picture")).to_have_attribute("data-source", "cellar")
    expect(snapshot).to_be_enabled()


def test_the_page_begins_with_a_source_that_runs(run_camera: Run, still: Picture, open_page: Open) -> None:
    camera = run_camera([unplugged("cellar", still), ShownPictures("cat", [still])])
    page = open_page(camera.url)
    wait_for_frames(page)
    expect(page.get_by_role("radio", name="cat")).to_be_checked()
    expect(page.locator("#picture")).to_have_attribute("data-source", "cat")
    page.goto(camera.url + "#source=cellar")
    page.reload()
    expect(page.get_by_role("radio", name="cellar (lost)")).to_be_checked()


def test_a_source_that_failed_says_so(run_camera: Run, still: Picture, open_page: Open) -> None:
    class Broken(ShownPictures):
        def open(self) -> None:
            raise gapcam.GapcamError("there is no such camera, " + "and what it was called has a very long name " * 9)

    page = open_page(run_camera([ShownPictures("cat", [still]), Broken("attic", [still])]).url)
    wait_for_frames(page)
    expect(page.get_by_role("radio", name="attic (failed)")).to_be_visible()
    table = page.locator(".scroll")
    expect(table).to_contain_text("there is no such camera")
    for width in (1440, 390, 320):
        page.set_viewport_size({"width": width, "height": 700})
        assert table.evaluate("one => one.scrollWidth <= one.clientWidth"), f"figures are out of sight at {width} px"


def test_a_source_that_gives_nothing_has_stalled(run_camera: Run, still: Picture, open_page: Open) -> None:
    camera = run_camera([ShownPictures("slow", [still], fps=0.05), ShownPictures("cat", [still])])
    page = open_page(camera.url + "#source=slow")
    expect(page.get_by_role("alert").filter(has_text="slow gives no pictures")).to_be_visible(timeout=WAIT_MS)
    expect(page.get_by_role("radio", name="slow (stalled)")).to_be_visible()


def test_caption_and_first_bar_are_of_one_frame(camera: WatchedCamera, open_page: Open) -> None:
    page = open_page(camera.url + "#source=cup")
    wait_for_frames(page, 3)
    wait_until_drawn(page, 10)
    differ = page.evaluate(
        """async () => {
            const differ = [], scores = new Set();
            for (let look = 0; look < 120; look++) {
                const [, label, score] = document.querySelector("#bars button").children;
                const said = [document.getElementById("caption-label"), document.getElementById("caption-score")];
                const seen = [label, score, ...said].map(one => one.textContent);
                if (seen[0] !== seen[2] || seen[1] !== seen[3]) differ.push(seen);
                scores.add(seen[3]);
                await new Promise(later => setTimeout(later, 25));
            }
            return [differ, scores.size];
        }"""
    )
    assert differ[0] == []
    assert differ[1] > 1, "the score never changed: the test shows nothing"


def test_the_score_is_the_chosen_classs(
    camera: WatchedCamera, open_page: Open, session: gapcam.Session, still: Picture
) -> None:
    scores = session(still)
    page = open_page(camera.url)
    wait_for_frames(page, 2)
    page.evaluate(
        "() => { window.said = []; const score = document.getElementById('class-shown');"
        " new MutationObserver(() => said.push(score.textContent)).observe(score, {childList: true}); }"
    )
    page.locator("#bars button").nth(1).click()
    wait_for_frames(page, 8)
    said = page.evaluate("said.filter(text => text.startsWith('Score'))")
    wanted = scores.top[1].score * 100
    assert said
    assert all(abs(float(text.split()[2]) - wanted) < 1 for text in said), (said, wanted)


def test_while_held_nothing_says_otherwise(camera: WatchedCamera, open_page: Open, session: gapcam.Session) -> None:
    page = open_page(camera.url)
    wait_for_frames(page, 3)
    page.get_by_role("button", name="Pause").click()
    page.wait_for_timeout(400)
    label, held = page.locator("#caption-label").inner_text(), page.locator("#held")
    expect(held).to_be_visible()
    for control in ("#bars button >> nth=1", "#class", "#map", "#alpha", "#colormap", "#reset", "input[value=cup]"):
        expect(page.locator(control)).to_be_disabled()
    for key in ("2", "m", "n", "]", "b"):
        page.keyboard.press(key)
    page.locator("#event-list button").first.click()
    page.evaluate("index => { location.hash = `class=${index}`; }", session.labels.index("goldfish"))
    page.wait_for_timeout(600)
    assert page.locator("#caption-label").inner_text() == label
    expect(page.locator("#class")).to_have_value("Best class")
    expect(page.get_by_role("switch", name="Map")).to_be_checked()
    expect(page.get_by_role("radio", name="cat")).to_be_checked()
    page.get_by_role("button", name="Go on").click()
    expect(held).to_be_hidden()
    expect(page.locator("#caption-label")).to_have_text("goldfish")  # the address that was asked for meanwhile
    expect(page.get_by_role("switch", name="Map")).to_be_enabled()


@pytest.mark.parametrize("off_s", [-600, 600])
def test_lanes_go_by_the_servers_clock(run_camera: Run, still: Picture, open_page: Open, off_s: int) -> None:
    camera = run_camera([ShownPictures("cat", [still])])
    page = open_page(camera.url + "login")
    page.add_init_script(f"const real = Date.now.bind(Date); Date.now = () => real() + {off_s * 1000};")
    page.goto(camera.url)
    wait_for_frames(page, 3)
    expect(page.locator("#event-list li").first).to_be_visible()
    page.wait_for_timeout(1200)
    expect(page.locator("#lanes")).to_be_visible()
    lanes = shown_picture(page, "lanes")
    since = (time.time() - _newest_entry(page)) / 120
    assert since < 0.9, "the class came too long ago for this test"
    row = lanes[int(lanes.shape[0] / page.evaluate("Math.round(lanes.clientHeight / 22.4)") * 15.5 / 22.4)]
    there = np.flatnonzero((row.astype(int)[:, 1] - row[:, 2]) > 40)  # the accent is green
    assert there.size
    assert there.min() / row.shape[0] == pytest.approx(1 - since, abs=0.03)
    assert there.max() > 0.99 * row.shape[0]


def _newest_entry(page: Page) -> float:
    """Unix seconds at which the class of the first lane came."""
    return float(page.evaluate("Date.parse(document.querySelector('#event-list time').dateTime) / 1000"))


def test_events_of_another_run_are_forgotten(
    session: gapcam.Session, still: Picture, moving: list[Picture], open_page: Open, expected: list[str]
) -> None:
    expected.append("ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET|WebSocket connection")
    port = lasting_port()
    with WatchedCamera(session, [ShownPictures("door", [still])], port=port) as camera:
        page = open_page(camera.url)
        expect(page.locator("#event-list")).to_contain_text("Egyptian cat enters", timeout=WAIT_MS)
    with WatchedCamera(session, [ShownPictures("door", moving)], port=port):
        expect(page.locator("#event-list")).to_contain_text("espresso enters", timeout=2 * WAIT_MS)
        expect(page.locator("#event-list")).not_to_contain_text("Egyptian cat")
        ids = page.evaluate("[...document.querySelectorAll('#event-list li')].map(item => Number(item.dataset.id))")
        assert 1 in ids


def test_another_camera_at_the_same_address_is_met_anew(
    session: gapcam.Session, still: Picture, open_page: Open, expected: list[str]
) -> None:
    expected.append("ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET|WebSocket connection")
    port = lasting_port()
    with WatchedCamera(session, [ShownPictures("door", [still])], port=port) as camera:
        page = open_page(camera.url)
        wait_for_frames(page)
        page.wait_for_timeout(1200)
    with WatchedCamera(session, [ShownPictures("yard", [still]), ShownPictures("attic", [still])], port=port):
        expect(page.get_by_role("radio", name="yard")).to_be_checked(timeout=2 * WAIT_MS)
        wait_for_frames(page)


def test_a_page_that_was_half_refused_loads_again(
    camera: WatchedCamera, open_page: Open, expected: list[str], keep: Keep
) -> None:
    expected.append("status of 429")
    page = open_page(camera.url + "login")
    refused: list[int] = []

    def refuse(route: object) -> None:
        refused.append(1)
        headers = {"retry-after": "2", "content-type": "application/json"}
        route.fulfill(status=429, body='{"error": "too many requests"}', headers=headers)  # type: ignore[attr-defined]

    page.route("**/static/events.js", refuse, times=2)
    page.goto(camera.url)
    expect(page.locator("#waiting")).to_contain_text("asked too often. This page is loaded again in 2 s.")
    keep(page, "half-refused", whole=False)
    wait_for_frames(page)
    assert len(refused) == 2


def test_charts_span_what_was_seen(camera: WatchedCamera, open_page: Open) -> None:
    page = open_page(camera.url + "login")
    page.add_init_script(
        "window.written = []; const write = CanvasRenderingContext2D.prototype.fillText;"
        "CanvasRenderingContext2D.prototype.fillText = function (text, ...where) {"
        " if (this.canvas.id === 'age-chart') written.push(text); return write.call(this, text, ...where); };"
    )
    page.goto(camera.url)
    wait_for_frames(page, 12)
    page.wait_for_timeout(1100)
    assert "10 s ago" in page.evaluate("written")
    expect(page.locator("#age-p99")).to_have_text("\u2013")  # of so few frames it would be the greatest
    page.wait_for_function("() => written.includes('20 s ago')", timeout=WAIT_MS)


@pytest.mark.parametrize("count", [30, 300])
def test_a_first_slow_frame_does_not_flatten_the_rest(camera: WatchedCamera, open_page: Open, count: int) -> None:
    page = open_page(camera.url)
    wait_for_frames(page)
    page.get_by_role("button", name="Pause").click()
    top = page.evaluate(
        """async count => {
            const { Charts } = await import("./static/charts.js");
            const charts = new Charts(), tops = [], context = document.getElementById("age-chart").getContext("2d");
            for (let frame = 0; frame < count; frame++) {
                charts.add({ age_ms: frame ? 20 : 3000, timings_ms: { inference: frame ? 15 : 2500 } });
            }
            context.fillText = text => tops.push(Number(text));
            charts.draw();
            delete context.fillText;
            return Math.max(...tops.filter(Number.isFinite));
        }""",
        count,
    )
    assert 20 <= top <= 50


def test_few_classes_take_little_room(run_camera: Run, still: Picture, open_page: Open) -> None:
    page = open_page(run_camera([ShownPictures("cat", [still])]).url)
    wait_for_frames(page)
    five = page.locator("#bars").bounding_box()
    two = page.evaluate(
        """async () => {
            const { Bars } = await import("./static/bars.js");
            document.getElementById("pause").click();
            const two = ["bird", "fish"].map((label, index) => ({ index, label, score: 0.9 - 0.8 * index }));
            new Bars(() => {}).show(two, null);
            return document.getElementById("bars").getBoundingClientRect().height;
        }"""
    )
    assert five is not None
    assert two < 0.5 * five["height"]


def test_names_written_from_right_to_left_turn_nothing_else(run_camera: Run, still: Picture, open_page: Open) -> None:
    camera = run_camera([ShownPictures("\u05d7\u05e6\u05e8", [still]), ShownPictures("door", [still])])
    page = open_page(camera.url)
    expect(page.locator("#event-list li").first).to_be_visible(timeout=WAIT_MS)
    around = page.evaluate(
        "[...document.querySelectorAll('#event-list bdi, #parts th, .bars .label, #caption-label, .tabs span')]"
        ".map(one => getComputedStyle(one).unicodeBidi)"
    )
    assert len(around) > 8
    assert set(around) == {"isolate"}
