"""The API: what it answers is what is so, and what /openapi.json says."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict

import cv2
import numpy as np
import pytest
from fastapi.openapi.models import OpenAPI
from json_schemas import check_schema
from planned_camera import PATIENCE_S, Gate, eventually, session_with
from watched_page import LABELS, TOKEN, WatchedPage, watched_page

from gapcam.camera.backoff import Reopen
from gapcam.camera.event import Event
from gapcam.camera.explain_settings import ExplainSettings
from gapcam.camera.page import api as api_module
from gapcam.camera.page.class_search import search_labels
from gapcam.camera.page.event_history import EventHistory
from gapcam.look import Look
from gapcam.overlay import COLORMAPS

RED, BLUE = (np.full((120, 160, 3), color, np.uint8) for color in ((20, 20, 220), (220, 20, 20)))


@pytest.fixture(scope="module")
def watch() -> Iterator[WatchedPage]:
    """Two cameras, one with frames and three events. Neither stalls, however long it is not fed: nothing changes."""
    with watched_page(("door", "yard"), reopen=Reopen(stall_s=3600)) as made:
        for image in (BLUE, RED, BLUE, RED):
            made.feed(image.copy(), "door")
        eventually(lambda: made.pipeline.status().sources[0].explained == 4)
        eventually(lambda: all(sink.written == 4 for sink in made.pipeline.status().sinks))
        yield made


def get(watch: WatchedPage, path: str, status: int = 200, **params: object):
    with watch.client() as client:
        answer = client.get(path, params=params)
    assert answer.status_code == status, answer.text
    return answer


def test_the_document_is_openapi_and_says_all_there_is(watch):
    document = get(watch, "openapi.json").json()
    OpenAPI.model_validate(document)
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == {
        "/healthz",
        "/metrics",
        "/login",
        "/logout",
        "/api/status",
        "/api/classes",
        "/api/settings",
        "/api/events",
        "/api/frame",
        "/api/snapshot.jpg",
        "/api/snapshot.png",
        "/api/stream.mjpeg",
    }
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for operation in operations:
        assert operation["description"]
        assert {"401", "403", "421", "429"} <= operation["responses"].keys()
        for parameter in operation.get("parameters", ()):
            assert parameter["description"]
    assert "HTTPValidationError" not in json.dumps(document), "no answer looks like that"


@pytest.mark.parametrize(
    ("path", "params", "status"),
    [
        ("/healthz", {}, 200),
        ("/api/status", {}, 200),
        ("/api/classes", {}, 200),
        ("/api/classes", {"search": "e", "limit": 1}, 200),
        ("/api/classes", {"limit": 0}, 422),
        ("/api/settings", {}, 200),
        ("/api/events", {}, 200),
        ("/api/events", {"after": -1}, 422),
        ("/api/events", {"after": 2**53 - 1}, 200),
        ("/api/events", {"after": 2**53}, 422),
        ("/api/events", {"after": 10**40}, 422),
        ("/api/frame", {"source": "door"}, 200),
        ("/api/frame", {"source": "yard"}, 503),
        ("/api/frame", {"source": "roof"}, 422),
        ("/api/snapshot.jpg", {"alpha": 2}, 422),
        ("/api/snapshot.png", {"class": "green"}, 422),
        ("/api/stream.mjpeg", {"max_width": 1}, 422),
    ],
)
def test_each_answer_is_what_the_document_says(watch, path, params, status):
    document = get(watch, "openapi.json").json()
    answer = get(watch, path, status, **params)
    content = document["paths"][path]["get"]["responses"][str(status)]["content"]
    assert answer.headers["content-type"] in content
    schema = content[answer.headers["content-type"]]["schema"]
    check_schema(answer.json(), schema, document)
    assert schema, "and it says something"


def test_refusals_are_what_the_document_says():
    with watched_page(token=TOKEN) as guarded, guarded.client() as client:
        document = client.get("openapi.json", headers={"Authorization": f"Bearer {TOKEN}"}).json()
        responses = document["paths"]["/api/status"]["get"]["responses"]
        for status, headers in (
            ("401", {}),
            ("421", {"Host": "evil.example"}),
            ("403", {"Sec-Fetch-Site": "cross-site"}),
        ):
            answer = client.get("api/status", headers=headers)
            assert answer.status_code == int(status)
            check_schema(answer.json(), responses[status]["content"]["application/json"]["schema"], document)


@pytest.mark.parametrize("token", [TOKEN, None])
def test_the_document_says_what_needs_the_token_and_how_it_is_given(token):
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    with watched_page(token=token) as served, served.client() as client, served.client() as signed_in:
        served.feed()
        document = client.get("openapi.json", headers=bearer).json()
        OpenAPI.model_validate(document)
        schemes = document["components"]["securitySchemes"]
        assert schemes["token"] == {"type": "http", "scheme": "bearer"}
        signed_in.post("login", data={"token": TOKEN})
        if token:
            assert [schemes["session"]["name"]] == list(signed_in.cookies)
        else:
            signed_in.cookies.set(schemes["session"]["name"], "x")
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                ways = operation.get("security", document["security"])
                if ways:
                    assert [set(way) for way in ways if way] == [{"token"}, {"session"}]
                assert (ways == [] or {} in ways) == (token is None or path in ("/healthz", "/login"))
                if method == "get" and path != "/api/stream.mjpeg":
                    assert client.get(path).status_code == (200 if ways == [] or {} in ways else 401)
                    assert client.get(path, headers=bearer).status_code == 200
                    assert signed_in.get(path).status_code == 200


def test_the_status_is_the_pipelines(watch):
    said, known = get(watch, "api/status").json(), json.loads(json.dumps(asdict(watch.pipeline.status())))
    assert 0 <= said.pop("uptime_s") <= known.pop("uptime_s")
    assert 0 <= said.pop("idle_s") < PATIENCE_S > known.pop("idle_s")
    for rows in (said["sources"], known["sources"]):
        for row in rows:
            row.pop("fps")
            assert abs(row.pop("since") - time.time()) < 600
    assert abs(said.pop("now") - time.time()) < 60
    assert (said.pop("clients"), said.pop("max_clients"), said.pop("token")) == (0, 16, False)
    assert said == known
    for source in said["sources"]:
        parts = ("explained", "dropped", "failed", "waiting")
        assert source["captured"] == sum(source[part] for part in parts)


def test_settings_are_the_pipelines(watch):
    said = get(watch, "api/settings").json()
    assert said == {
        "sources": ["door", "yard"],
        "model": "small.onnx",
        "engine": watch.pipeline.session.engine,
        "exact": True,
        "threshold": 0.2,
        "alpha": 0.5,
        "colormap": "jet",
        "colormaps": sorted(COLORMAPS),
        "steady": True,
    }
    settings = ExplainSettings(threshold=0.4, look=Look("turbo", 0.25), normalization="fixed", limits=(-1.0, 3.0))
    with watched_page(settings=settings) as other:
        said = get(other, "api/settings").json()
        assert (said["threshold"], said["alpha"], said["colormap"], said["steady"]) == (0.4, 0.25, "turbo", False)
        explained = other.feed(RED.copy())
        assert get(other, "api/snapshot.png").content == png(explained.picture(caption=False)), "fixed limits hold here"


def test_classes_are_found_by_any_part_of_their_label(watch):
    assert get(watch, "api/classes").json() == {
        "count": 2,
        "found": 2,
        "classes": [{"index": 0, "label": "red"}, {"index": 1, "label": "blue"}],
    }
    assert [row["label"] for row in get(watch, "api/classes", search=" LU ").json()["classes"]] == ["blue"]
    limited = get(watch, "api/classes", search="e", limit=1).json()
    assert (limited["found"], len(limited["classes"])) == (2, 1)


def test_labels_that_begin_with_the_text_come_first_and_an_index_before_them():
    labels = ("wild cat", "cat", "Catamaran", "dog", "12 cats", "Straße")
    assert search_labels(labels, "cat") == [1, 2, 0, 4]
    assert search_labels(labels, "") == search_labels(labels, "  ") == [0, 1, 2, 3, 4, 5]
    assert search_labels(labels, "1") == [1, 4]
    assert search_labels(labels, "4") == [4]
    assert search_labels(labels, "99") == []
    assert search_labels(labels, "STRASSE") == [5]
    assert search_labels(labels, "²") == []


def test_events_are_numbered_and_can_be_asked_for_from_one_on(watch):
    said = get(watch, "api/events").json()
    assert said["latest"] == 3
    assert [row["id"] for row in said["events"]] == [1, 2, 3]
    assert [(row["event"], row["source"], row["label"]) for row in said["events"]] == [
        ("enters", "door", "red"),
        ("leaves", "door", "red"),
        ("enters", "door", "red"),
    ]
    happened = [event.to_dict() for frame in watch.kept.frames for event in frame.events]
    assert [{k: v for k, v in row.items() if k != "id"} for row in said["events"]] == happened
    assert get(watch, "api/events", after=2).json()["events"] == said["events"][2:]
    assert get(watch, "api/events", after=3).json() == {"events": [], "latest": 3, "run": said["run"]}
    assert get(watch, "api/events", after=99).json()["events"] == []
    assert get(watch, "api/events", limit=2).json()["events"] == said["events"][:2]


def test_the_last_events_are_kept_and_whoever_asks_in_time_misses_none():
    history = EventHistory(kept=10)
    events = [Event("enters", "cam", number, float(number), 0, "red", 1.0) for number in range(25)]
    seen: list[dict[str, object]] = []
    for start in range(0, 25, 5):
        history.add(events[start : start + 5])
        while rows := history.after(int(str(seen[-1]["id"])) if seen else 0, limit=3):
            seen += rows
    assert [row["id"] for row in seen] == list(range(1, 26))
    assert [row["frame"] for row in seen] == list(range(25))
    assert [row["id"] for row in history.after(0)] == list(range(16, 26)), "ten are kept"
    assert history.latest == 25
    assert history.after(10**40) == []


def test_the_run_is_another_one_where_the_ids_begin_anew(watch):
    run = get(watch, "api/events").json()["run"]
    assert len(run) == 16
    watch.page.close()
    watch.page.start()  # the ids go on
    assert get(watch, "api/events").json()["latest"] == 3
    assert get(watch, "api/events").json()["run"] == run
    with watched_page() as other:
        assert get(other, "api/events").json()["run"] != run


def test_a_frame_is_all_that_is_known_of_it(watch):
    known = json.loads(json.dumps(watch.page.newest("door").to_dict()))
    said = get(watch, "api/frame").json()
    # Drawing for somebody else adds to the timings.
    assert said.pop("timings_ms").keys() >= {"wait", "inference"}
    known.pop("timings_ms")
    assert said == known


def test_what_is_known_of_a_quiet_frame_says_that_nothing_is_shown():
    with watched_page(settings=ExplainSettings(above=1.0)) as quiet:
        quiet.feed(RED.copy())
        said = get(quiet, "api/frame").json()
        assert said["shown"] is None
        assert said["classes"] == []


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 3])[1].tobytes()


def test_a_snapshot_is_the_newest_frame_as_it_was_asked_for(watch):
    explained = watch.page.newest("door")
    answer = get(watch, "api/snapshot.png")
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == png(explained.picture(caption=False))
    name = answer.headers["content-disposition"]
    assert name.startswith('attachment; filename="door-20')
    assert name.endswith(f'Z-{explained.captured.number}.png"')
    bare = get(watch, "api/snapshot.png", map=False, boxes=False)
    assert np.array_equal(cv2.imdecode(np.frombuffer(bare.content, np.uint8), 1), explained.captured.image)
    look = {"alpha": 0.9, "colormap": "bone", "threshold": 0.7}
    said = get(watch, "api/snapshot.png", **look)
    assert said.content == png(explained.picture(look=Look("bone", 0.9), threshold=0.7, caption=False))
    small = get(watch, "api/snapshot.jpg", max_width=80)
    assert small.headers["content-type"] == "image/jpeg"
    assert cv2.imdecode(np.frombuffer(small.content, np.uint8), 1).shape == (60, 80, 3)


def test_a_snapshot_of_another_class_waits_for_its_map(monkeypatch):
    monkeypatch.setattr(api_module, "MAP_WAIT_S", PATIENCE_S)
    with watched_page() as watch, watch.client() as client:
        watch.feed(RED.copy())
        answers = []
        thread = threading.Thread(
            target=lambda: answers.append(client.get("api/snapshot.png", params={"class": LABELS[1]}))
        )
        thread.start()
        eventually(lambda: watch.pipeline.demand.wanted() == (1,), "that the class is wanted")
        explained = watch.feed()
        thread.join()
        assert answers[0].content == png(explained.picture(1, caption=False))
        assert watch.pipeline.demand.wanted() == ()


def test_a_sources_name_makes_a_files_name_and_nothing_else():
    with watched_page(('../"a; x=1\r\nX: y',)) as watch:
        watch.feed(RED.copy(), '../"a; x=1\r\nX: y')
        answer = get(watch, "api/snapshot.jpg")
        assert answer.headers["content-disposition"].startswith('attachment; filename="a-x-1-X-y-20')
        assert "x" not in answer.headers


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"alpha": "x"}, "alpha: "),
        ({"alpha": "nan"}, "alpha is 'nan'; give a number"),
        ({"threshold": 1}, "threshold is 1.0"),
        ({"class": 2}, "there is no class 2: this model has 2, 0 to 1"),
        ({"class": "gren"}, "there is no class called 'gren'"),
        ({"class": "g" * 300}, "class: "),
        ({"colormap": "jt"}, "Did you mean 'jet'?"),
        ({"source": "dor"}, "Did you mean 'door'?"),
        ({"map": "maybe"}, "map: "),
        ({"max_width": 10**9}, "max_width is 1e+09"),
    ],
)
def test_a_wrong_value_is_a_line_that_says_what_is_right(watch, params, said):
    for path in ("api/snapshot.jpg", "api/stream.mjpeg"):
        error = get(watch, path, 422, **params).json()
        assert error.keys() == {"error"}
        assert said in error["error"]
        assert "\n" not in error["error"]


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("api/snapshot.jpg", "source, class, map, boxes, threshold, alpha, colormap, max_width"),
        ("api/snapshot.png", "source, class, map, boxes, threshold, alpha, colormap, max_width"),
        ("api/stream.mjpeg", "source, class, map, boxes, threshold, alpha, colormap, max_width"),
        ("api/frame", "source"),
        ("api/events", "after, limit"),
        ("api/classes", "search, limit"),
    ],
)
def test_a_misspelt_parameter_is_refused_and_the_right_names_said(watch, path, names):
    said = get(watch, path, 422, bogus=1, source="door").json()
    assert said["error"].startswith("there is no parameter '")
    assert said["error"].endswith(f"; there are: {names}")
    assert len(get(watch, path, 422, **{"\n" * 3000: 1}).json()["error"]) < 400


@pytest.mark.parametrize("name", ["_", "t"])
def test_a_number_that_keeps_a_picture_out_of_caches_is_no_misspelling(watch, name):
    for path in ("api/snapshot.jpg", "api/frame"):
        assert get(watch, path, **{name: 12}, source="door").content
        assert "'bogus'" in get(watch, path, 422, **{name: 12}, bogus=1).json()["error"]


def test_head_is_answered_as_get_is_without_the_body(watch):
    with watch.client() as client:
        for path in ("/", "/static/style.css", "/healthz", "/api/settings", "/openapi.json", "/api/frame?x=1", "/no"):
            head, whole = client.head(path), client.get(path)
            assert (head.status_code, head.content) == (whole.status_code, b""), path
            for name in ("content-type", "content-length", "cache-control", "content-security-policy", "etag"):
                assert head.headers.get(name) == whole.headers.get(name), (path, name)
        assert client.head("api/stream.mjpeg").status_code == 200
        eventually(lambda: watch.page._seats.count() == 0, "that a stream that nobody reads ends")


def test_what_is_not_there_is_a_line_too(watch):
    with watch.client() as client:
        for method, path, status in (
            ("GET", "/api/nothing", 404),
            ("GET", "/docs", 404),
            ("GET", "/redoc", 404),
            ("POST", "/api/status", 405),
            ("DELETE", "/", 405),
        ):
            answer = client.request(method, path)
            assert answer.status_code == status
            assert answer.json().keys() == {"error"}


def test_health_is_the_inference_threads(watch, monkeypatch):
    assert get(watch, "healthz").json() == {"status": "ok"}
    monkeypatch.setattr(api_module, "WELL_S", 0.3)
    gate = Gate()
    with session_with(gate) as session, watched_page(session=session) as hung:
        hung.sources["cam"].feed(RED.copy())
        gate.wait_for(1)
        eventually(lambda: hung.pipeline.status().idle_s > 0.3)
        assert get(hung, "healthz", 503).json() == {"status": "not ok"}
        gate.open()
        eventually(lambda: hung.pipeline.status().sources[0].explained == 1)
        with hung.client() as client:  # it comes round each half a second, which is longer than `WELL_S` here
            eventually(lambda: client.get("healthz").json() == {"status": "ok"})
