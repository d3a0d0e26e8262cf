"""Exported programs: what is written is read again, and nothing that a file brings is run."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import gap_network
from torch import Tensor, nn

import gapcam
from gapcam.contract import Preprocessing, Source
from gapcam.errors import DataError
from gapcam_export.errors import SourceError
from gapcam_export.harmless_operators import is_harmless
from gapcam_export.program import ProgramRecord, load_program, save_program, set_training, trace

SIZE = (32, 48)
RECORD = ProgramRecord(
    producer="gapcam test",
    source=Source(spec="networks.py:gap_network", sha256="0" * 64),
    preprocessing=Preprocessing(size=SIZE, resize="crop", crop_pct=0.9),
    labels=("ape", "bee", "cat", "dog", "eel"),
    history=("it was made",),
)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program that gapcam wrote."""
    path = tmp_path_factory.mktemp("program") / "good.pt2"
    save_program(gap_network(), SIZE, RECORD, path)
    return path


def test_what_is_written_is_read_again(good: Path) -> None:
    network, program = gap_network(), load_program(good)
    assert (program.size, program.record) == (SIZE, RECORD)
    for batch in (1, 2, 5):
        image = torch.randn(batch, 3, *SIZE)
        with torch.no_grad():
            torch.testing.assert_close(program.model(image), network(image), rtol=1e-6, atol=1e-6)
    assert {name for name, _ in program.model.named_parameters()} == {name for name, _ in network.named_parameters()}
    written = program.model.state_dict()
    for name, value in network.state_dict().items():
        assert name.endswith("num_batches_tracked") or torch.equal(written[name], value)
    # ... and once more from there.
    save_program(program.model, SIZE, RECORD, good.with_name("again.pt2"))
    image = torch.randn(2, 3, *SIZE)
    with torch.no_grad():
        assert torch.equal(load_program(good.with_name("again.pt2")).model(image), program.model(image))


def test_the_file_does_not_tell_where_it_was_made(good: Path) -> None:
    here = str(Path(gapcam.__file__).parents[2]).encode()
    with zipfile.ZipFile(good) as archive:
        for member in archive.namelist():
            assert here not in archive.read(member)
            assert b"site-packages" not in archive.read(member)


def test_dropout_drops_and_batch_norm_learns_only_when_asked_to() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Flatten(), nn.LazyLinear(5))
    image = torch.randn(4, 3, 8, 8)
    network(image)
    model = trace(network.eval(), (8, 8))
    mean = model.state_dict()["1.running_mean"]

    def changes() -> tuple[bool, bool]:
        before = mean.clone()
        with torch.no_grad():
            same = torch.equal(model(image), model(image))
        return not same, not torch.equal(before, mean)

    assert changes() == (False, False)
    set_training(model, dropout=True, batch_norm=False)
    assert changes() == (True, False)
    set_training(model, dropout=False, batch_norm=True)
    assert changes() == (False, True)
    set_training(model, dropout=False, batch_norm=False)
    assert changes() == (False, False)


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        save_program(gap_network(), SIZE, RECORD, tmp_path / "file" / "net.pt2")


def test_a_network_that_cannot_be_traced_is_refused() -> None:
    class Branches(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image if image.sum() > 0 else -image

    with pytest.raises(SourceError, match=r"torch\.export cannot trace the network on"):
        trace(Branches(), SIZE)


# Somebody else's programs.


def test_a_plain_program_is_read_without_a_record(tmp_path: Path) -> None:
    network = gap_network()
    program = torch.export.export(network, (torch.zeros(1, 3, *SIZE),))
    torch.export.save(program, tmp_path / "plain.pt2")
    read = load_program(tmp_path / "plain.pt2")
    assert (read.size, read.record) == (SIZE, None)
    image = torch.randn(1, 3, *SIZE)
    with torch.no_grad():
        torch.testing.assert_close(read.model(image), network(image), rtol=1e-6, atol=1e-6)


class TwoImages(nn.Module):
    def forward(self, one: Tensor, two: Tensor) -> Tensor:
        return (one + two).mean((2, 3))


def test_programs_that_do_not_take_one_image_of_one_size_are_refused(tmp_path: Path) -> None:
    image = torch.zeros(2, 3, *SIZE)
    path = tmp_path / "other.pt2"
    torch.export.save(torch.export.export(TwoImages(), (image, image)), path)
    with pytest.raises(SourceError, match=r"takes \['2', '3', '32', '48'\], .*expected one image \[N,3,H,W\]"):
        load_program(path)
    torch.export.save(torch.export.export(nn.Flatten(), (torch.zeros(2, 5),)), path)
    with pytest.raises(SourceError, match=r"takes \['2', '5'\]; expected one image"):
        load_program(path)
    sides = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    torch.export.save(torch.export.export(gap_network(), (image,), dynamic_shapes=(sides,)), path)
    with pytest.raises(SourceError, match="takes images of any size; expected one size"):
        load_program(path)


# Files that are none, and damaged ones.


def test_files_that_are_no_programs_are_refused(tmp_path: Path, good: Path) -> None:
    with pytest.raises(SourceError, match="there is no file"):
        load_program(tmp_path / "none.pt2")
    for name, content in (
        ("empty.pt2", b""),
        ("text.pt2", b"network"),
        ("half.pt2", good.read_bytes()[: good.stat().st_size // 2]),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SourceError, match=r"is no exported program that torch .* reads, or is damaged"):
            load_program(tmp_path / name)
    torch.save(gap_network().state_dict(), tmp_path / "weights.pt2")
    with pytest.raises(SourceError, match=r"weights.pt2 (is no exported program|holds)"):
        load_program(tmp_path / "weights.pt2")


@pytest.mark.parametrize("member", ["models/model.json", "data/weights/model_weights_config.json", "archive_format"])
def test_a_damaged_program_is_an_error_in_a_line(
    tmp_path: Path, good: Path, member: str, capfd: pytest.CaptureFixture[str]
) -> None:
    for number, damage in enumerate((lambda text: text[:-40], lambda _: "{}", lambda _: "[1]")):
        path = rewritten(good, tmp_path / f"{number}.pt2", {member: damage})
        with pytest.raises(SourceError, match="is no exported program"):
            load_program(path)
    assert capfd.readouterr().err == ""


def test_a_damaged_record_is_refused(tmp_path: Path, good: Path) -> None:
    path = rewritten(good, tmp_path / "record.pt2", {"extra/gapcam.json": lambda text: text.replace("crop", "slice")})
    with pytest.raises(SourceError, match=r"damaged record of gapcam's: .*Make it again"):
        load_program(path)


# Files that bring code.

Edit = Callable[[str], str]


def rewritten(
    good: Path, path: Path, edits: dict[str, Edit] | None = None, added: dict[str, bytes] | None = None
) -> Path:
    """A copy of a program with members edited as text, and others added."""
    edits = edits or {}
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            folder, _, name = info.filename.partition("/")
            content = old.read(info)
            if name in edits:
                content = edits[name](content.decode()).encode()
            if name not in (added or {}):
                new.writestr(f"{folder}/{name}", content)
        for name, content in (added or {}).items():
            new.writestr(f"{folder}/{name}", content)
    return path


def in_json(change: Callable[[Any], None]) -> Edit:
    """An edit of a member that holds JSON."""

    def edit(text: str) -> str:
        value = json.loads(text)
        change(value)
        return json.dumps(value)

    return edit


class Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


def first_node(program: Any) -> Any:
    return program["graph_module"]["graph"]["nodes"][0]


def set_operator(program: Any) -> None:
    first_node(program)["target"] = "torch.hub.load"


def set_expression(program: Any) -> None:
    values = program["graph_module"]["graph"]["tensor_values"]
    size = next(side for value in values.values() for side in value["sizes"] if "as_expr" in str(side))
    size["as_sym_int" if "as_sym_int" in size else "as_expr"]["expr_str"] = (
        "__import__('pathlib').Path('canary').touch()"
    )


def set_keyword(program: Any) -> None:
    argument = first_node(program)["inputs"][-1]
    argument["name"], argument["kind"] = "a=__import__('pathlib').Path('canary').touch(), b", 2


def set_parameter_name(program: Any) -> None:
    specs = program["graph_module"]["signature"]["input_specs"]
    next(spec for spec in specs if "parameter" in spec)["parameter"]["parameter_name"] = 'a"); print("b'


def set_argument_names(program: Any) -> None:
    program["graph_module"]["module_call_graph"][0]["signature"]["forward_arg_names"] = ["image=print(1)"]


def set_input_type(program: Any) -> None:
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    signature["in_spec"] = signature["in_spec"].replace("builtins.dict", "collections.OrderedDict")


def set_input_names(program: Any) -> None:
    signature = program["graph_module"]["module_call_graph"][0]["signature"]
    signature["in_spec"] = signature["in_spec"].replace('"context": "[]"', '"context": "[\\"a=print(1)\\"]"')


def set_tensor_name(program: Any) -> None:
    program["graph_module"]["graph"]["inputs"][-1]["as_tensor"]["name"] = "x=print(1)"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (set_operator, "the operator 'torch.hub.load'"),
        (set_expression, 'the size "__import__'),
        (set_keyword, 'the name "a=__import__'),
        (set_parameter_name, "the name 'a"),
        (set_argument_names, "the name 'image=print"),
        (set_tensor_name, "the name 'x=print"),
        (set_input_type, "inputs or outputs of type 'collections.OrderedDict'"),
        (set_input_names, "inputs or outputs called"),
    ],
)
def test_a_graph_that_would_run_code_is_refused(
    tmp_path: Path, good: Path, change: Callable[[Any], None], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = rewritten(good, tmp_path / "evil.pt2", {"models/model.json": in_json(change)})
    with pytest.raises(SourceError, match="could run code when it is loaded") as refusal:
        load_program(path)
    assert what in str(refusal.value)
    assert not (tmp_path / "canary").exists()


class AddsConstant(nn.Module):
    """Fills a tensor with what a buffer holds, before it is added to the maps."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=16)
        self.register_buffer("payload", torch.tensor(list(b"changed"), dtype=torch.uint8))

    def forward(self, image: Tensor) -> Tensor:
        made = torch.full([len(b"changed")], 7, dtype=torch.uint8).copy_(self.payload)
        return (torch.relu(self.conv(image)) + made.sum() * 0.0).mean((2, 3))


def test_a_graph_that_writes_a_file_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"private")
    save_program(AddsConstant(), SIZE, RECORD, tmp_path / "good.pt2")
    assert load_program(tmp_path / "good.pt2").size == SIZE

    def map_file(program: Any) -> None:
        nodes = program["graph_module"]["graph"]["nodes"]
        (made,) = (node for node in nodes if node["target"] == "torch.ops.aten.full.default")
        made["target"] = "torch.ops.aten.from_file.default"
        made["inputs"] = [
            {"name": "filename", "arg": {"as_string": str(victim)}, "kind": 1},
            {"name": "shared", "arg": {"as_bool": True}, "kind": 1},
            {"name": "size", "arg": {"as_int": 7}, "kind": 1},
            {"name": "dtype", "arg": {"as_scalar_type": 1}, "kind": 2},
        ]

    path = rewritten(tmp_path / "good.pt2", tmp_path / "evil.pt2", {"models/model.json": in_json(map_file)})
    with pytest.raises(SourceError, match=r"the operator 'torch\.ops\.aten\.from_file\.default', which could .* files"):
        load_program(path).model(torch.zeros(1, 3, *SIZE))
    assert victim.read_bytes() == b"private"


@pytest.mark.parametrize(
    "operator",
    [
        "aten.from_file.out",  # takes a path
        "aten.save.default",
        "aten.manual_seed.default",  # sets what is outside
        "aten._embedding_bag.default",  # private
        "aten._foreach_add_.Scalar",
        "prims._make_token.default",
        "aten.relu.unknown",  # torch has none
        "aten.nothing.default",
        "aten.set_.source_Storage",
    ],
)
def test_operators_that_do_more_than_compute_are_refused(tmp_path: Path, good: Path, operator: str) -> None:
    def change(program: Any) -> None:
        first_node(program)["target"] = f"torch.ops.{operator}"

    path = rewritten(good, tmp_path / "evil.pt2", {"models/model.json": in_json(change)})
    with pytest.raises(SourceError, match=f"holds the operator 'torch.ops.{operator}', which could") as refusal:
        load_program(path)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "operator",
    [
        "gelu.default", "pad.default", "einsum.default", "div.Tensor_mode", "conv2d.padding", "to.device",
        "arange.start", "_assert_tensor_metadata.default", "upsample_bilinear2d.vec",
        "scaled_dot_product_attention.default", "full.default", "sym_size.int",
        "_native_batch_norm_legit_no_training.default", "new_zeros.default", "dropout_.default",
        "copy_.default",
    ],
)  # fmt: skip
def test_operators_of_real_networks_are_known(operator: str) -> None:
    assert is_harmless(f"torch.ops.aten.{operator}")


WEIGHTS, CONSTANTS = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"


def payload(path_name: str, *, use_pickle: bool) -> Callable[[Any], None]:
    def change(config: Any) -> None:
        config["config"]["evil"] = {
            "path_name": path_name, "is_param": False, "use_pickle": use_pickle, "tensor_meta": None
        }  # fmt: skip

    return change


@pytest.mark.parametrize(
    ("edits", "name"),
    [
        ({WEIGHTS: in_json(payload("weight_99", use_pickle=True))}, "data/weights/weight_99"),
        ({CONSTANTS: in_json(payload("tensor_99", use_pickle=True))}, "data/constants/tensor_99"),
        ({CONSTANTS: in_json(payload("opaque_obj_0", use_pickle=False))}, "data/constants/opaque_obj_0"),
        ({CONSTANTS: in_json(payload("custom_obj_0", use_pickle=False))}, "data/constants/custom_obj_0"),
        ({}, "data/weights/model.pt"),
        ({}, "data/constants/model.pt"),
        ({}, "data/sample_inputs/model.pt"),
        ({}, "data/aotinductor/model/library.so"),
        ({}, "models/model.jsox"),
    ],
)
def test_pickles_and_libraries_are_refused(tmp_path: Path, good: Path, edits: dict[str, Edit], name: str) -> None:
    canary = tmp_path / "canary"
    pickled = io.BytesIO()
    torch.save({"evil": Touch(canary)}, pickled)
    content = pickle.dumps(Touch(canary)) if "opaque" in name else pickled.getvalue()
    path = rewritten(good, tmp_path / "evil.pt2", edits, {name: content})
    with pytest.raises(SourceError, match="could run code when it is loaded"):
        load_program(path)
    assert not canary.exists()


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_with_two_members_of_one_name_is_refused(tmp_path: Path, good: Path) -> None:
    path = tmp_path / "two.pt2"
    shutil.copy(good, path)
    with zipfile.ZipFile(path, "a") as archive:
        name = next(name for name in archive.namelist() if name.endswith("models/model.json"))
        archive.writestr(name, archive.read(name))
    with pytest.raises(SourceError, match="files of one name"):
        load_program(path)
    shutil.copy(good, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("version", "8.0")
        archive.writestr("serialized_state_dict.pt", b"")
    with pytest.raises(SourceError, match=r"files of one name|not in a subdirectory"):
        load_program(path)


@torch.library.custom_op("gapcam_tests::twice", mutates_args=())
def twice(values: torch.Tensor) -> torch.Tensor:
    return 2 * values


@twice.register_fake
def _(values: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(values)


class WithAnOperatorOfItsOwn(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return twice(image.mean((2, 3)))


def test_what_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"the operator gapcam_tests\.twice\.default"):
        save_program(WithAnOperatorOfItsOwn(), SIZE, RECORD, tmp_path / "file.pt2")
    assert list(tmp_path.iterdir()) == []
