"""Which peers there are, what opening one refuses, and that they keep to their threads and tell nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest

from gapcam.errors import BackendError, MissingExtraError, UsageError
from gapcam_bench.block import Request
from gapcam_bench.cell import Cell
from gapcam_bench.peers.names import PEERS, chosen_peers, contract_of, open_peer, why_not
from gapcam_bench.subjects.engine_options import SESSION_OPTIONS
from gapcam_bench.subjects.open_subject import open_subject
from gapcam_bench.subjects.protocol import Picture

CELL = Cell(subject="handwritten", model="tiny.onnx", threads=1, frame=(48, 64), work=("overlay",))


def test_peers_are_chosen_by_name_or_by_what_is_before_the_comma() -> None:
    assert chosen_peers(()) == ("gapcam", *PEERS)
    assert chosen_peers(("grad-cam, eager", "openvino")) == ("openvino, fp32", "openvino, bf16", "grad-cam, eager")
    with pytest.raises(UsageError, match=r"there is no peer 'captum'; there are: gapcam; handwritten; openvino, fp32;"):
        chosen_peers(("handwritten", "captum"))


def test_a_peer_that_is_not_there_is_refused(tiny_model: Path) -> None:
    cell = msgspec.structs.replace(CELL, subject="captum")
    with pytest.raises(UsageError, match="there is no peer 'captum'"):
        open_peer(Request(cell=cell, file=str(tiny_model)))


@pytest.mark.parametrize(("name", "package"), [("torch-cam, eager", "torchcam"), ("openvino, fp32", "openvino")])
def test_a_missing_package_is_named_with_the_extra(
    name: str, package: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # what Python takes for "cannot be imported"
    with pytest.raises(MissingExtraError, match=rf"{package} is not installed.*gapcam\[peers\]"):
        open_peer(Request(cell=msgspec.structs.replace(CELL, subject=name), file=str(tiny_model)))
    assert package in str(why_not(PEERS[name], contract_of(tiny_model)))


def test_a_torch_peer_does_not_run_one_network_and_say_it_was_another(tiny_model: Path, demo_model: Path) -> None:
    peer = PEERS["torch-cam, eager"]
    assert "two networks" in str(why_not(peer, contract_of(tiny_model)))
    assert why_not(peer, contract_of(demo_model)) is None
    with pytest.raises(BackendError, match=r"torch-cam, eager does not work here: it explains .*efficientnet_lite0"):
        open_peer(Request(cell=msgspec.structs.replace(CELL, subject=peer.name), file=str(tiny_model)))


def test_without_a_compiler_the_compiled_peers_say_so(demo_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    contract = contract_of(demo_model)
    reasons = {name: why_not(peer, contract) for name, peer in PEERS.items()}
    assert {name for name, reason in reasons.items() if "C++ compiler" in str(reason)} == {
        "torch-cam, compile",
        "grad-cam, compile",
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": "cuda"}, "peers are compared on the CPU"),
        ({"threads": None}, "peers are held to one number"),
        ({"batch": 2}, "the batch is 2"),
        ({"work": ("overlay", "boxes")}, "peers take a frame to an overlay"),
        ({"emit": "topk"}, "got emit topk"),
    ],
)
def test_a_cell_that_peers_do_not_do_is_refused(change: dict[str, object], said: str, tiny_model: Path) -> None:
    with pytest.raises(UsageError, match=said):
        open_peer(Request(cell=msgspec.structs.replace(CELL, **change), file=str(tiny_model)))


def test_several_pictures_in_a_query_are_refused(tiny_model: Path) -> None:
    picture = Picture("black", b"", np.zeros((48, 64, 3), np.uint8))
    subject = open_peer(Request(cell=CELL, file=str(tiny_model)))
    with pytest.raises(UsageError, match="got 2 pictures in one query; peers take 1"):
        subject.run([picture, picture])


WATCHED = """
import sys, time
seen = []
def watch(event, arguments):
    if event.startswith(("socket.", "urllib.", "subprocess.", "os.posix_spawn", "os.exec", "os.fork")):
        seen.append(event)
sys.addaudithook(watch)
from pathlib import Path
from gapcam_bench.block import Request
from gapcam_bench.cell import Cell
from gapcam_bench.cold import import_seconds
cell = Cell(subject="openvino, fp32", model="m", threads=1, frame=(48, 64), work=("overlay",))
import_seconds(cell, Path(sys.argv[1]))  # the first thing that a worker does with it
from gapcam_bench.peers.names import open_peer
open_peer(Request(cell=cell, file=sys.argv[1]))
time.sleep(1)  # what is sent is sent by a thread
assert "openvino" in sys.modules
assert "openvino_telemetry.main" not in sys.modules
assert not seen, seen
"""


def test_openvino_tells_nobody_that_it_was_imported(tiny_model: Path, tmp_path: Path) -> None:
    """Its telemetry would send from a thread or a process, and keep an id of the user in the home folder."""
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in ("CI", "JENKINS_URL", "TF_BUILD")}
    command = [sys.executable, "-c", WATCHED, str(tiny_model)]
    done = subprocess.run(command, env={**environment, "HOME": str(home)}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (home / "intel").exists()


def test_onnx_runtime_is_set_for_the_peer_by_hand_as_for_gapcam(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its threads sleep when they have nothing to do: two of them that spin would keep two processors busy."""
    made: list[onnxruntime.SessionOptions] = []
    really = onnxruntime.InferenceSession

    def noted(path: str, options: onnxruntime.SessionOptions, **named: object) -> onnxruntime.InferenceSession:
        made.append(options)
        return really(path, options, **named)

    monkeypatch.setattr(onnxruntime, "InferenceSession", noted)
    for subject in ("gapcam", "handwritten"):
        cell = msgspec.structs.replace(CELL, subject=subject, threads=2)
        open_subject(Request(cell=cell, file=str(tiny_model))).close()
    ours, by_hand = made
    for name in SESSION_OPTIONS:
        assert by_hand.get_session_config_entry(name) == ours.get_session_config_entry(name) == "0"
    assert by_hand.intra_op_num_threads == ours.intra_op_num_threads == 2


BUSY = """
import json, sys, time
from gapcam_bench.subjects.thread_limits import limit_libraries
limit_libraries(1)  # as the worker does before anything else
from gapcam_bench.block import Request
from gapcam_bench.cell import Cell
from gapcam_bench.peers.names import open_peer
from gapcam_bench.subjects.pictures import pictures
found = {}
for name in sys.argv[2:]:
    cell = Cell(subject=name, model="m", threads=1, work=("overlay",))
    subject, shown = open_peer(Request(cell=cell, file=sys.argv[1])), pictures(None, cell.frame, 1)
    subject.run(shown)
    processor, wall = time.process_time(), time.perf_counter()
    while time.perf_counter() - wall < 0.7:
        subject.run(shown)
    found[name] = (time.process_time() - processor) / (time.perf_counter() - wall)
    subject.close()
print(json.dumps(found))
"""


def test_a_peer_with_one_thread_keeps_one_processor_busy(demo_model: Path) -> None:
    """On a machine that is busy with other things it gets less; never more than one."""
    names = [name for name, peer in PEERS.items() if why_not(peer, contract_of(demo_model)) is None]
    names = [name for name in names if not PEERS[name].compiles]
    command = [sys.executable, "-c", BUSY, str(demo_model), *names]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    assert list(found) == names
    assert {name: busy for name, busy in found.items() if not 0 < busy < 1.1} == {}
