"""Who may watch, who holds up whom, and what the page does when the server or the camera is gone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from http import HTTPStatus
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import pytest
from camera_servers.server_process import lasting_port
from numpy.typing import NDArray
from playwright.sync_api import Page, Route, expect
from shown_pictures import ShownPictures
from small_models import a_contract, fake_red_and_blue
from watched_camera import WatchedCamera
from watched_page import WAIT_MS, drawn, shown_number, wait_for_frames, wait_until_drawn

import gapcam

TOKEN = "an-open-sesame-of-some-length"  # noqa: S105 - of the test's own server

Open = Callable[..., Page]
Run = Callable[..., WatchedCamera]

STALLED_CLIENT = """async view => {
    const socket = new WebSocket(new URL("api/live", document.baseURI).href.replace("http", "ws").split("#")[0]);
    socket.binaryType = "arraybuffer";
    window.stalled = 0;
    socket.onmessage = () => window.stalled++;
    await new Promise(open => socket.onopen = open);
    socket.send(JSON.stringify({type: "view", ...view}));
}"""


@pytest.fixture
def locked(run_camera: Run, still: NDArray[np.uint8]) -> WatchedCamera:
    """A camera that asks for a token."""
    return run_camera([ShownPictures("cat", [still])], token=TOKEN)


def clients(camera: WatchedCamera) -> int:
    """How many watch, as the server counts them."""
    with urlopen(f"{camera.url}api/status") as answer:  # noqa: S310 - the test's own server
        count: int = json.load(answer)["clients"]
    return count


def clients_become(camera: WatchedCamera, wanted: int, page: Page) -> None:
    """Until so many watch: those of earlier tests may still be leaving."""
    for _ in range(WAIT_MS // 100):
        if clients(camera) == wanted:
            break
        page.wait_for_timeout(100)
    assert clients(camera) == wanted


def test_a_stalled_client_holds_nobody_up(camera: WatchedCamera, open_page: Open) -> None:
    page = open_page(camera.url + "#source=cup")
    wait_for_frames(page, 5)
    other = open_page(camera.url + "#source=cup")
    other.evaluate(STALLED_CLIENT, {"source": "cup"})
    other.wait_for_function("() => window.stalled > 0", timeout=WAIT_MS)
    other.evaluate("document.getElementById('pause').click()")  # the page itself is not what is tried
    wait_until_drawn(page, 30)
    assert other.evaluate("window.stalled") == 1, "a client that is never ready gets one picture"


def test_two_pages_show_two_sources(camera: WatchedCamera, open_page: Open) -> None:
    pages = [open_page(f"{camera.url}#source={name}") for name in ("cat", "cup")]
    for page in pages:
        wait_for_frames(page, 3)
    assert [page.locator("#picture").get_attribute("data-source") for page in pages] == ["cat", "cup"]


def test_a_hidden_page_asks_for_nothing(camera: WatchedCamera, open_page: Open) -> None:
    page = open_page(camera.url)
    wait_for_frames(page)
    assert clients(camera) >= 1
    # Chromium without a screen hides no tab by itself.
    page.evaluate(
        "hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        True,
    )
    clients_become(camera, 0, page)
    page.wait_for_timeout(500)  # what had come is drawn
    count = drawn(page)
    page.wait_for_timeout(700)
    assert drawn(page) == count
    page.evaluate(
        "() => { delete document.hidden; document.dispatchEvent(new Event('visibilitychange')); }",
    )
    wait_for_frames(page, 2)


def test_a_wrong_token_is_refused_and_the_right_one_lets_in(
    locked: WatchedCamera, open_page: Open, expected: list[str], keep: Callable[..., None]
) -> None:
    expected.append("status of 401")  # Chromium's own line about a refused request
    page = open_page(locked.url)
    page.wait_for_url("**/login")
    token = page.get_by_label("Token")
    expect(token).to_be_focused()
    keep(page, "login")
    token.fill("not the token at all")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_have_text("This is not the token.")
    assert page.url.endswith("/login")
    keep(page, "login-refused")
    token.fill(TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_url(locked.url)
    wait_for_frames(page)
    expect(page.get_by_role("button", name="Sign out")).to_be_visible()
    assert TOKEN not in json.dumps(
        page.evaluate("[{...localStorage}, {...sessionStorage}, location.href, document.cookie]")
    )
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/login")
    page.goto(locked.url)
    page.wait_for_url("**/login")


def test_signing_out_goes_to_the_login_once(locked: WatchedCamera, open_page: Open, expected: list[str]) -> None:
    """Even if the login is slow, and what the page asks until then is refused."""
    expected.append("status of 401|WebSocket connection")
    page = open_page(locked.url + "login")
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    page.wait_for_url(locked.url)
    wait_for_frames(page)
    asked: list[Route] = []
    page.route("**/login", lambda route: asked.append(route))
    refused: list[str] = []
    page.on("response", lambda answer: refused.append(answer.url) if answer.status == HTTPStatus.UNAUTHORIZED else None)
    page.get_by_role("button", name="Sign out").click(no_wait_after=True)
    for _ in range(100):
        if refused and asked:
            break
        page.wait_for_timeout(100)
    page.wait_for_timeout(300)
    assert refused
    assert len(asked) == 1
    asked[0].continue_()
    expect(page.get_by_label("Token")).to_be_focused()


def test_without_a_token_there_is_no_picture(locked: WatchedCamera, open_page: Open, expected: list[str]) -> None:
    expected.append("status of 401|WebSocket connection")
    page = open_page(locked.url + "login")
    said = page.evaluate(
        "() => Promise.all(['settings', 'status', 'events', 'classes', 'frame', 'snapshot.jpg', 'stream.mjpeg']"
        ".map(async name => (await fetch('api/' + name)).status))"
    )
    assert set(said) == {HTTPStatus.UNAUTHORIZED}
    assert (
        page.evaluate(
            "() => new Promise(done => {"
            "const socket = new WebSocket(new URL('api/live', document.baseURI).href.replace('http', 'ws'));"
            "socket.onopen = () => done('open'); socket.onclose = () => done('closed'); })"
        )
        == "closed"
    )


def test_the_page_connects_again_when_the_server_is_back(
    session: gapcam.Session, still: NDArray[np.uint8], open_page: Open, expected: list[str], keep: Callable[..., None]
) -> None:
    expected.append("ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET|WebSocket connection")
    port = lasting_port()
    with WatchedCamera(session, [ShownPictures("cat", [still])], port=port) as camera:
        page = open_page(camera.url)
        wait_for_frames(page, 2)
    connection = page.locator("#connection-text")
    expect(connection).to_have_text("Connection lost, trying again")
    expect(page.get_by_role("button", name="Try now")).to_be_visible()
    page.wait_for_timeout(1200)
    keep(page, "server-gone")
    before = drawn(page)
    with WatchedCamera(session, [ShownPictures("cat", [still])], port=port):
        page.wait_for_function("before => window.drawn > before + 2", arg=before, timeout=WAIT_MS)
        expect(connection).to_have_text("Live")


def test_a_page_opened_before_its_server_waits_for_it(
    camera: WatchedCamera, open_page: Open, expected: list[str]
) -> None:
    expected.append("ERR_FAILED")
    page = open_page(camera.url + "login")
    page.route("**/api/settings", lambda route: route.abort())
    page.goto(camera.url)
    expect(page.locator("#connection-text")).to_have_text("No connection, trying again")
    page.unroute("**/api/settings")
    wait_for_frames(page)


def test_a_lost_camera_is_said_and_comes_back(
    run_camera: Run,
    still: NDArray[np.uint8],
    moving: list[NDArray[np.uint8]],
    open_page: Open,
    keep: Callable[..., None],
) -> None:
    door = ShownPictures("front door", moving)
    camera = run_camera([door, ShownPictures("yard", [still])])
    page = open_page(camera.url, color_scheme="dark")
    wait_for_frames(page, 20)
    banner = page.get_by_role("alert").filter(has_text="front door is lost")
    expect(banner).to_have_count(0)
    door.unplug()
    expect(banner).to_contain_text("the camera is unplugged. It is being reopened.")
    expect(page.get_by_role("radio", name="front door (lost)")).to_be_checked()
    keep(page, "desktop-dark-lost-source")
    before = shown_number(page)
    page.get_by_role("radio", name="yard").check()
    expect(banner).to_be_hidden()
    page.get_by_role("radio", name="front door (lost)").check()
    door.plug_in()
    expect(banner).to_be_hidden(timeout=WAIT_MS)
    page.wait_for_function(
        "before => document.getElementById('picture').dataset.source === 'front door'"
        " && Number(document.getElementById('picture').dataset.number) > before",
        arg=before,
        timeout=WAIT_MS,
    )


@pytest.mark.parametrize("count", [2, 6])  # tabs, a list
def test_names_are_text_whatever_they_hold(still: NDArray[np.uint8], open_page: Open, count: int) -> None:
    tag, script = "<img src=x onerror=alert(1)>", "\"'><script>alert(2)</script>"
    names = [f"{tag}{number}" for number in range(count)]
    sources = [ShownPictures(name, [still]) for name in names]
    sources[1].unplug()
    backend = fake_red_and_blue(a_contract((16, 16), (tag, script)))
    with gapcam.Session(backend, name=f"{tag}.onnx") as session, WatchedCamera(session, sources) as camera:
        page = open_page(camera.url)
        asked: list[str] = []
        page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
        page.reload()
        wait_for_frames(page, 3)
        page.locator("#class").fill("<")
        expect(page.locator("#class-list")).to_contain_text(tag)
        page.locator("#class-list [role=option]", has_text=script).click()
        expect(page.locator("#class")).to_have_value(script)
        expect(page.locator("#caption")).to_contain_text(script)
        for place, text in (
            ("#about", f"{tag}.onnx"),
            ("#sources", names[0]),
            ("#sources", f"{names[1]}{' (lost)' if count > 5 else ''}"),
            ("#parts", names[1]),
            ("#bars", tag),
            ("#event-list", names[0]),
            ("#event-list", tag),
            ("#event-source", names[1]),
        ):
            expect(page.locator(place)).to_contain_text(text)
        expect(page.locator("#bars button").first).to_have_attribute("title", re.compile("^(<img|\"'><script)"))
        expect(page.locator("#picture")).to_have_attribute("aria-label", re.compile(re.escape(names[0])))
        page.locator("#event-source").select_option(names[0])
        with page.expect_download() as saved:
            page.get_by_role("link", name="Snapshot", exact=True).click()
        assert re.fullmatch(r"[\w.-]+\.jpg", saved.value.suggested_filename)
        page.goto(camera.url + "#" + urlencode({"source": names[1], "class": tag}))
        page.reload()
        expect(page.locator("#waiting")).to_contain_text(names[1])
        made = "[...document.all].filter(one => one.matches('img[src=x], script:not([src])')"
        made += " || one.getAttributeNames().some(name => name.startsWith('on'))).map(one => one.outerHTML)"
        assert page.evaluate(made) == []
        assert asked == []
        page.context.close()


def test_one_too_many_learns_why(
    run_camera: Run, still: NDArray[np.uint8], open_page: Open, expected: list[str]
) -> None:
    expected.append("WebSocket connection")
    camera = run_camera([ShownPictures("cat", [still])], max_clients=1)
    first = open_page(camera.url)
    wait_for_frames(first)
    second = open_page(camera.url)
    expect(second.locator("#waiting")).to_have_text("No more than 1 can watch at once, and so many do")
    expect(second.get_by_role("button", name="Try now")).to_be_visible()
    first.close()
    second.locator("#retry").dispatch_event("click")  # it is hidden where the page has tried again by itself just now
    wait_for_frames(second)


def test_many_sources_are_a_list(
    run_camera: Run, still: NDArray[np.uint8], open_page: Open, keep: Callable[..., None]
) -> None:
    names = [f"camera {number}" for number in range(1, 8)]
    page = open_page(run_camera([ShownPictures(name, [still], fps=1) for name in names]).url)
    page.get_by_role("combobox", name="Source", exact=True).select_option("camera 7")
    expect(page.locator("#picture")).to_have_attribute("data-source", "camera 7", timeout=WAIT_MS)
    keep(page, "many-sources")


def test_a_connection_given_up_before_it_is_open_is_closed_without_a_complaint(
    camera: WatchedCamera, open_page: Open
) -> None:
    page = open_page(camera.url)
    wait_for_frames(page)
    clients_become(camera, 1, page)
    states = page.evaluate(
        """async () => {
            const { Live } = await import(new URL("static/live.js", document.baseURI));
            const states = [];
            const live = new Live({ onState: state => states.push(state) });
            live.show({});
            live.hold(true);
            await new Promise(waited => setTimeout(waited, 1000));
            return states;
        }"""
    )
    assert states == ["connecting", "held"]
    clients_become(camera, 1, page)
