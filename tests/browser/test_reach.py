"""The page is for everybody: by keyboard, by screen reader, on a phone, light and dark."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Page, expect
from shown_pictures import ShownPictures
from watched_camera import WatchedCamera
from watched_page import WAIT_MS, wait_for_frames

import gapcam
from gapcam.camera.sources.source_uri import source_from_uri

Open = Callable[..., Page]
Keep = Callable[..., None]
Run = Callable[..., WatchedCamera]

# Of each text that is seen: its contrast with what is behind it (WCAG 2.2, 1.4.3), where that is a colour. What lies
# over the picture is taken on white and on black.
CONTRASTS = """() => {
    const parsed = text => {
        const [r, g, b, a = 1] = text.match(/[\\d.]+/g).map(Number);
        return text.startsWith("color(srgb") ? [r * 255, g * 255, b * 255, a] : [r, g, b, a];
    };
    const over = ([r, g, b, a], [R, G, B]) => [r * a + R * (1 - a), g * a + G * (1 - a), b * a + B * (1 - a)];
    const luminance = color => {
        const [r, g, b] = color.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ratio = (one, other) => {
        const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    };
    const rows = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement, text = walker.currentNode.textContent.trim();
        if (!text || !element.checkVisibility({visibilityProperty: true})) continue;
        if (element.closest(".sr, .skip, .waiting, noscript, script, option")) continue;
        const layers = [];
        let below = element;
        for (; below; below = below.parentElement) {
            const color = parsed(getComputedStyle(below).backgroundColor);
            layers.unshift(color);
            if (color[3] === 1) break;
        }
        const grounds = element.closest(".caption, .banner") ? [[255, 255, 255], [0, 0, 0]] : [[255, 255, 255]];
        // A bar's fill is behind some of its text.
        const bar = element.closest(".bars button");
        const fill = bar && parsed(getComputedStyle(bar.querySelector(".fill")).backgroundColor);
        for (const ground of grounds) {
            const behind = layers.reduce((under, layer) => over(layer, under), ground);
            const color = over(parsed(getComputedStyle(element).color), behind);
            const worst = Math.min(ratio(color, behind), fill ? ratio(color, over(fill, behind)) : 99);
            rows.push([text.slice(0, 40), worst]);
        }
    }
    return rows;
}"""

SIZES = """() => [...document.querySelectorAll("button, a.button, select, input, summary, [role=switch]")]
    .filter(one => one.checkVisibility({visibilityProperty: true}) && !one.closest("#sources"))
    .map(one => one.closest("label") ?? one)
    .map(one => [one.id || one.className || one.textContent, one.getBoundingClientRect().height])"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(camera: WatchedCamera, open_page: Open, keep: Keep, scheme: str) -> None:
    page = open_page(camera.url, color_scheme=scheme)
    wait_for_frames(page, 30)
    page.wait_for_timeout(1500)
    keep(page, f"desktop-{scheme}")
    page.get_by_role("button", name="Keyboard shortcuts").click()
    rows = page.evaluate(CONTRASTS)
    assert len(rows) > 60
    assert [row for row in rows if row[1] < 4.5] == []
    keep(page, f"shortcuts-{scheme}", whole=False)


def test_a_sign_in_has_contrast(
    run_camera: Callable[..., WatchedCamera], still: NDArray[np.uint8], open_page: Open
) -> None:
    camera = run_camera([ShownPictures("cat", [still])], token="a-token-of-this-test")  # noqa: S106 - of its own server
    for scheme in ("light", "dark"):
        page = open_page(camera.url, color_scheme=scheme)
        assert [row for row in page.evaluate(CONTRASTS) if row[1] < 4.5] == []


def test_the_theme_follows_the_system_until_it_is_chosen(camera: WatchedCamera, open_page: Open) -> None:
    page = open_page(camera.url, color_scheme="light")
    background = "() => getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(background)
    page.emulate_media(color_scheme="dark")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    dark = page.evaluate(background)
    assert light != dark
    page.get_by_role("button", name="Dark theme").click()
    assert page.evaluate(background) == light
    page.reload()
    assert page.evaluate(background) == light
    page.get_by_role("button", name="Dark theme").click()
    page.emulate_media(color_scheme="light")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    assert page.evaluate(background) == light, "what was chosen is what the system says: it is followed again"


@pytest.mark.parametrize(("width", "height"), [(320, 568), (344, 882), (360, 640), (390, 844), (740, 360)])
def test_the_top_is_one_row_where_one_signs_out(
    run_camera: Callable[..., WatchedCamera],
    still: NDArray[np.uint8],
    open_page: Open,
    keep: Keep,
    width: int,
    height: int,
) -> None:
    token = "a-token-of-this-test"  # noqa: S105 - of its own server
    camera = run_camera([ShownPictures("cat", [still]), ShownPictures("cup", [still])], token=token)
    page = open_page(camera.url, width=width, height=height, has_touch=True, is_mobile=True)
    page.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")
    page.wait_for_url(camera.url)
    wait_for_frames(page, 2)
    leave = page.get_by_role("button", name="Sign out")
    expect(leave).to_be_visible()
    expect(page.locator("#connection-text")).to_have_text("Live")
    keep(page, f"phone-{width}x{height}-token", whole=False)
    boxes = page.evaluate(
        "['h1', '#connection', '#theme', '#help', '#logout button'].map(one => document.querySelector(one))"
        ".map(one => one.getBoundingClientRect()).map(({left, right, top, bottom}) => [left, right, top, bottom])"
    )
    for before, after in itertools.pairwise(boxes):
        assert before[1] <= after[0], boxes
        assert max(before[2], after[2]) < min(before[3], after[3]), f"not in one row: {boxes}"
    assert boxes[-1][1] <= width
    assert boxes[0][3] - boxes[0][2] < 30, "the name is broken"
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.getElementById('connection-text').scrollWidth") <= page.evaluate(
        "document.getElementById('connection-text').clientWidth"
    ), "what the connection says is cut"


def test_a_phone_on_its_side_shows_picture_and_buttons_at_once(camera: WatchedCamera, open_page: Open) -> None:
    page = open_page(camera.url, width=740, height=360, has_touch=True, is_mobile=True)
    wait_for_frames(page, 2)
    top, tabs, stage, pause = (
        page.locator(name).bounding_box() for name in ("header.top", "#sources", "#stage", "#pause")
    )
    assert top
    assert tabs
    assert stage
    assert pause
    assert tabs["y"] + tabs["height"] <= top["y"] + top["height"] <= stage["y"]
    name = page.evaluate("document.querySelector('h1').getBoundingClientRect().right")
    assert name <= tabs["x"] < tabs["x"] + tabs["width"] <= page.locator("#connection").bounding_box()["x"]  # type: ignore[index]
    assert pause["y"] + pause["height"] <= 360
    page.get_by_role("radio", name="cup").tap()
    expect(page.get_by_role("radio", name="cup")).to_be_checked()


@pytest.mark.parametrize(("width", "height"), [(320, 568), (390, 844), (740, 360), (820, 1180)])
def test_it_fits_a_phone(camera: WatchedCamera, open_page: Open, keep: Keep, width: int, height: int) -> None:
    page = open_page(camera.url, width=width, height=height, has_touch=True, is_mobile=True)
    wait_for_frames(page, 12)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.documentElement.clientWidth") == width, "the page is wider than the phone"
    keep(page, f"phone-{width}x{height}")
    keep(page, f"phone-{width}x{height}-first", whole=False)
    assert [row for row in page.evaluate(SIZES) if row[1] < 43.5 and row[0] != "retry"] == []
    page.evaluate("scrollTo(0, document.getElementById('events-title').getBoundingClientRect().top)")
    page.wait_for_timeout(200)
    if width < 740:
        assert page.locator("#stage").bounding_box()["y"] == 0, "the picture stays in sight"  # type: ignore[index]


def test_switches_are_24_px_high_with_a_mouse(camera: WatchedCamera, open_page: Open) -> None:
    page = open_page(camera.url)
    wait_for_frames(page)
    heights = page.evaluate("[...document.querySelectorAll('main [role=switch]')].map(one => one.clientHeight + 2)")
    assert len(heights) == 2
    assert min(heights) >= 24


def test_all_is_done_by_keyboard_alone(camera: WatchedCamera, open_page: Open) -> None:
    page = open_page(camera.url)
    wait_for_frames(page)
    press = page.keyboard.press

    def tab_to(wanted: str) -> None:
        for _ in range(40):
            if page.evaluate("document.activeElement.id") == wanted:
                assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
                return
            press("Tab")
        pytest.fail(f"#{wanted} is not reached by the Tab key")

    press("Tab")
    expect(page.get_by_role("link", name="Skip to the controls")).to_be_focused()
    press("Enter")
    expect(page.locator("#controls")).to_be_focused()
    press("Tab")
    expect(page.locator("#bars button").first).to_be_focused()
    tab_to("class")
    combobox = page.get_by_role("combobox", name="Map of")
    page.keyboard.type("goldf")
    expect(page.get_by_role("option", name="goldfish")).to_be_visible()
    expect(page.locator("#class-count")).to_have_text("2 classes")  # not the list of what was typed until then
    expect(combobox).to_have_attribute("aria-expanded", "true")
    press("ArrowDown")
    active = page.locator(f"#{combobox.get_attribute('aria-activedescendant')}")
    expect(active).to_have_text("goldfish")
    press("Enter")
    expect(combobox).to_have_attribute("aria-expanded", "false")
    expect(page.locator("#caption-label")).to_have_text("goldfish")
    press("Escape")
    expect(combobox).to_have_value("Best class")
    press("ArrowDown")
    expect(page.get_by_role("option", name="Best class")).to_have_attribute("aria-selected", "true")
    press("ArrowDown")
    press("Escape")
    expect(combobox).to_have_attribute("aria-expanded", "false")
    expect(combobox).to_have_value("Best class")
    tab_to("map")
    press("Space")
    expect(page.get_by_role("switch", name="Map")).not_to_be_checked()
    press("Space")
    tab_to("alpha")
    press("ArrowRight")
    expect(page.locator("#alpha-value")).to_have_text("55 %")
    tab_to("colormap")
    page.keyboard.type("vir")
    expect(page.get_by_role("combobox", name="Colours")).to_have_value("viridis")
    tab_to("reset")
    press("Enter")
    expect(page.get_by_role("combobox", name="Colours")).to_have_value("jet")
    for later in ("events-save", "event-kind", "event-list"):
        tab_to(later)


def test_shortcuts_act_and_can_be_turned_off(camera: WatchedCamera, open_page: Open) -> None:
    page = open_page(camera.url)
    wait_for_frames(page)
    map_, best = page.get_by_role("switch", name="Map"), page.locator("#bars button")
    page.keyboard.press("m")
    expect(map_).not_to_be_checked()
    page.keyboard.press("2")
    expect(page.get_by_role("button", name="Follow the best class")).to_be_visible()
    expect(best.nth(1)).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("0")
    page.keyboard.press("n")
    expect(page.get_by_role("radio", name="cup")).to_be_checked()
    page.keyboard.press("c")
    page.keyboard.type("m")  # a letter in a field is a letter
    expect(map_).not_to_be_checked()
    page.keyboard.press("Escape")
    page.get_by_role("heading", name="Classes").click()
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="Keyboard")
    expect(dialog).to_be_visible()
    dialog.get_by_role("switch", name="Shortcuts of one key").uncheck()
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.keyboard.press("m")
    page.wait_for_timeout(200)
    expect(map_).not_to_be_checked()


def test_every_control_has_a_name_and_every_part_a_landmark(camera: WatchedCamera, open_page: Open) -> None:
    page = open_page(camera.url)
    wait_for_frames(page, 5)
    tree = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    seen = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in tree if not node["ignored"]]
    named = {"button", "link", "combobox", "slider", "switch", "radio", "image", "img", "option", "dialog", "region"}
    assert [role for role, name in seen if role in named and not name.strip()] == []
    roles = [role for role, _ in seen]
    assert {"main", "banner", "region", "status", "slider", "switch", "radio", "combobox"} <= set(roles)
    assert any(role == "image" and name.startswith("Live picture of cat, with the map of ") for role, name in seen)
    headings = page.evaluate("[...document.querySelectorAll('h1, h2, h3')].map(one => one.tagName)")
    assert headings[0] == "H1"
    assert headings.count("H1") == 1


def test_a_new_best_class_is_told_and_not_too_often(camera: WatchedCamera, open_page: Open) -> None:
    page = open_page(camera.url)
    page.evaluate(
        "() => { window.told = []; new MutationObserver(() => told.push([performance.now(),"
        " document.getElementById('announcer').textContent])).observe(document.getElementById('announcer'),"
        " {childList: true, characterData: true, subtree: true}); }"
    )
    page.wait_for_function("() => told.some(([, text]) => text.includes('Best class: '))", timeout=WAIT_MS)
    page.get_by_role("radio", name="cup").check()
    page.wait_for_function("() => told.filter(([, text]) => text.includes('Best class: ')).length > 1", timeout=WAIT_MS)
    times = np.array([time for time, _ in page.evaluate("told")])
    assert (np.diff(times) > 3900).all()


def test_events_are_listed_filtered_and_saved(camera: WatchedCamera, open_page: Open) -> None:
    page = open_page(camera.url)
    items = page.locator("#event-list li")
    expect(items.first).to_be_visible()
    with page.expect_download() as saved:
        page.get_by_role("link", name="Save as JSON").click()
    events = json.loads(Path(saved.value.path()).read_text())["events"]
    entered = [event["label"] for event in events if event["event"] == "enters" and event["source"] == "cat"]
    assert entered
    page.get_by_role("combobox", name="Source of event").select_option("cat")
    page.get_by_role("combobox", name="Kind of event").select_option("enters")
    expect(items).to_have_count(min(100, len(entered)))
    expect(items.last).to_contain_text(f"{entered[0]} enters")
    page.get_by_role("combobox", name="Kind of event").select_option("zone")
    expect(items).to_have_count(0)
    expect(page.locator("#no-events")).to_be_visible()


def test_an_event_of_a_film_is_listed_with_its_place_there(run_camera: Run, open_page: Open) -> None:
    film = source_from_uri("test://?size=320x240&fps=10#seek=3723", name="film")
    page = open_page(run_camera([film]).url)
    shown = page.locator("#event-list li time").last
    expect(shown).to_be_visible()
    first = page.evaluate("async () => (await (await fetch('api/events')).json()).events[0]")
    assert first["position_s"] >= 3723
    expect(shown).to_have_text(str(timedelta(seconds=int(first["position_s"]))))  # 1:02:03


def test_percentiles_are_numpys(camera: WatchedCamera, open_page: Open) -> None:
    page = open_page(camera.url)
    rng = np.random.default_rng(7)
    for count in (1, 2, 5, 100, 1799):
        values = rng.gamma(2.0, 15.0, count)
        for share in (0.5, 0.99):
            found = page.evaluate(
                "async ([values, share]) =>"
                " (await import('./static/charts.js')).percentile(Float64Array.from(values).sort(), share)",
                [values.tolist(), share],
            )
            assert found == pytest.approx(np.percentile(values, share * 100), rel=1e-12)


def test_charts_say_in_tables_what_they_draw(camera: WatchedCamera, open_page: Open) -> None:
    page = open_page(camera.url)
    wait_for_frames(page, 30)
    page.get_by_text("As a table").click()
    expect(page.locator("#age-rows tr").first).to_contain_text("0 to 10")
    stages = page.locator("#stage-rows th").all_inner_texts()
    assert {"wait", "preprocess", "inference"} <= set(stages)
    page.wait_for_timeout(1100)
    told, p50 = page.evaluate(  # at once: they change each second
        "() => [document.getElementById('age-chart').ariaLabel, document.getElementById('age-p50').textContent]"
    )
    assert p50 in told
    drawn = page.evaluate(
        "id => { const canvas = document.getElementById(id); return canvas.toDataURL() !=="
        " Object.assign(document.createElement('canvas'), {width: canvas.width, height: canvas.height}).toDataURL(); }",
        "stage-chart",
    )
    assert drawn


def test_what_was_set_is_there_after_a_reload(camera: WatchedCamera, open_page: Open, session: gapcam.Session) -> None:
    page = open_page(camera.url)
    wait_for_frames(page)
    page.get_by_role("slider", name="Opacity").fill("0.8")
    page.get_by_role("combobox", name="Colours").select_option("turbo")
    page.goto(camera.url + f"#class={session.labels.index('goldfish')}")
    page.reload()
    expect(page.get_by_role("combobox", name="Colours")).to_have_value("turbo")
    expect(page.locator("#alpha-value")).to_have_text("80 %")
    expect(page.get_by_role("combobox", name="Map of")).to_have_value("goldfish")
    page.goto(camera.url + "#class=99999&alpha=7&colormap=none&source=nowhere")
    page.reload()
    wait_for_frames(page)
    expect(page.get_by_role("combobox", name="Map of")).to_have_value("Best class")
    expect(page.locator("#alpha-value")).to_have_text("80 %")


def test_forced_colours_keep_the_controls_visible(camera: WatchedCamera, open_page: Open, keep: Keep) -> None:
    page = open_page(camera.url, forced_colors="active")
    wait_for_frames(page, 12)
    keep(page, "forced-colours")
    page.emulate_media(forced_colors="active", reduced_motion="reduce")
    assert page.evaluate("getComputedStyle(document.querySelector('.bars .fill')).transitionDuration") in ("0s", "none")


def test_the_page_is_small(camera: WatchedCamera, open_page: Open) -> None:
    page = open_page(camera.url + "login")
    cdp = page.context.new_cdp_session(page)
    cdp.send("Network.enable")
    cdp.send("Network.setCacheDisabled", {"cacheDisabled": True})
    loaded: dict[str, float] = {}
    names: dict[str, str] = {}
    cdp.on("Network.responseReceived", lambda said: names.update({said["requestId"]: said["response"]["url"]}))
    cdp.on("Network.loadingFinished", lambda said: loaded.update({said["requestId"]: said["encodedDataLength"]}))
    page.goto(camera.url)
    wait_for_frames(page)
    files = {names[key]: size for key, size in loaded.items() if "/api/" not in names.get(key, "/api/")}
    assert len(files) > 10
    assert sum(files.values()) < 60_000, files
