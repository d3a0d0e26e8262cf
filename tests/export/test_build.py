"""Engines of every exported variant are built for real, by TensorRT-RTX, for SM 86 and 89, without a GPU.

What cannot be seen without one is whether they run. What can: that TensorRT parses and builds them, the inputs and
outputs of the network that it built from, the precision of its layers, and the size of its weights.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from calibration_images import write_photographs
from onnx import TensorProto, helper, numpy_helper
from small_models import a_contract, red_and_blue
from small_quantizable import Block, exported, plain, residual, tokens

import gapcam
from gapcam.contract import contract_from_metadata
from gapcam.engine_file import BuiltPrecision, EngineFile, read_engine
from gapcam.engine_fit import this_platform
from gapcam.tensorrt_log import logger_of
from gapcam_export import BuildOptions, PrecisionOptions, build
from gapcam_export.engines.builder import EngineBuilder
from gapcam_export.engines.gpu import Gpu
from gapcam_export.engines.timing_cache import read_timings, timing_cache_path, write_timings

rtx = pytest.importorskip("tensorrt_rtx_bindings", reason="TensorRT-RTX is for Linux on x86-64")

TARGETS = ("86", "89")
DTYPES = {TensorProto.FLOAT: "float32", TensorProto.INT64: "int64", TensorProto.UINT8: "uint8"}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photographs(tmp_path_factory.mktemp("photos"))


def engine_of(folder: Path, options: BuildOptions | None = None) -> EngineFile:
    """Build what `exported` has written, and open the file."""
    options = options or BuildOptions(batch=(1, 2, 4), targets=TARGETS)
    report = build(folder / "exported.onnx", folder / "model.engine", options)
    assert report.built
    assert report.size_bytes == (folder / "model.engine").stat().st_size
    return read_engine(folder / "model.engine")


def shape_of(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    return tuple(dim.dim_value or None for dim in value.type.tensor_type.shape.dim)


def check_against_the_model(engine: EngineFile, model: onnx.ModelProto, *, without: tuple[str, ...] = ()) -> None:
    """What the engine's file says, against the ONNX file that it was built from."""
    header = engine.header
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    outputs = {value.name: value for value in model.graph.output}
    assert set(engine.tensors) == {"cam_weights", "cam_bias"} & set(outputs)
    for name, tensor in engine.tensors.items():
        np.testing.assert_array_equal(tensor, constants[name])
    expected = [name for name in outputs if name not in {*engine.tensors, *without}]
    assert [tensor.name for tensor in header.outputs] == expected
    for tensor in (*header.inputs, *header.outputs):
        (value,) = (value for value in (*model.graph.input, *model.graph.output) if value.name == tensor.name)
        assert tensor.dtype == DTYPES[value.type.tensor_type.elem_type]
        assert tensor.shape == shape_of(value)
    assert engine.metadata == {entry.key: entry.value for entry in model.metadata_props}
    assert (header.runtime, header.runtime_version) == ("tensorrt-rtx", rtx.__version__)
    assert (header.targets, header.platform) == (("sm_86", "sm_89"), this_platform())
    assert bytes(engine.plan[:4]) == b"vtrt"  # TensorRT-RTX's own mark


Counts = dict[str, int]
VARIANTS: dict[str, tuple[Block, dict[str, Any], Counts]] = {
    "fp32": (residual, {}, {"fp32": 5}),
    "layernorm": (plain, {"head": "layernorm"}, {"fp32": 3}),
    "nonlinear": (plain, {"head": "nonlinear"}, {"fp32": 6}),  # two layers in the head, two of its rows
    "class-maps": (plain, {"head": "class-maps"}, {"fp32": 3}),
    "tokens": (tokens, {"head": "layernorm"}, {"fp32": 10}),
    "uint8": (plain, {"embed": True}, {"fp32": 3}),
    "topk": (plain, {"emit": ("features", "topk"), "topk": 2}, {"fp32": 4}),
    "fp16": (residual, {"precision": PrecisionOptions(precision="fp16")}, {"fp16": 4, "fp32": 1}),
    "fp16 head": (plain, {"precision": PrecisionOptions(precision="fp16", lower_head=True)}, {"fp16": 3}),
    "bf16": (residual, {"precision": PrecisionOptions(precision="bf16")}, {"bf16": 4, "fp32": 1}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_is_built_with_the_models_inputs_outputs_and_precision(variant: str, tmp_path: Path) -> None:
    block, options, counts = VARIANTS[variant]
    model, contract = exported(tmp_path, block, **options)
    with engine_of(tmp_path) as engine:
        check_against_the_model(engine, model)
        precision = engine.header.precision
        assert precision == BuiltPrecision(
            asked=contract.precision, network=counts, not_read="there is no GPU here to open the engine on"
        )
        (profile,) = engine.header.profiles
        sides = shape_of(model.graph.input[0])[1:]
        assert (profile["image"].min, profile["image"].opt, profile["image"].max) == (
            (1, *sides),
            (2, *sides),
            (4, *sides),
        )
        assert contract_from_metadata(engine.metadata, "it") == contract


@pytest.mark.parametrize(("lower_head", "counts"), [(False, {"fp32": 1, "int8": 4}), (True, {"int8": 5})])
def test_int8_for_tensorrt_is_built_with_its_layers_in_int8(
    photos: Path, tmp_path: Path, lower_head: bool, counts: Counts
) -> None:
    how = PrecisionOptions(precision="int8", calibrate=photos, target="tensorrt", lower_head=lower_head)
    model, _ = exported(tmp_path, residual, precision=how)
    with engine_of(tmp_path) as engine:
        check_against_the_model(engine, model)
        assert engine.header.precision.network == counts


@pytest.mark.parametrize("target", ["cpu-x86", "cpu-arm"])
def test_int8_for_cpus_is_refused_with_what_to_do(photos: Path, tmp_path: Path, target: Any) -> None:
    exported(tmp_path, plain, precision=PrecisionOptions(precision="int8", calibrate=photos, target=target))
    with pytest.raises(gapcam.ModelError, match=rf"was quantised for {target} .*--target tensorrt"):
        engine_of(tmp_path)
    assert not (tmp_path / "model.engine").exists()


def claims(precision: str) -> Callable[[onnx.ModelProto], None]:
    """Change what a model's contract says that it computes in."""

    def change(model: onnx.ModelProto) -> None:
        for entry in model.metadata_props:
            entry.value = entry.value.replace('"precision":"fp32"', f'"precision":"{precision}"')

    return change


def with_wide_layer(dtype: type[np.floating[Any]]) -> Callable[[onnx.ModelProto], None]:
    """Two million weights of this type, between the image and an output of their own."""

    def change(model: onnx.ModelProto) -> None:
        claims("fp16" if dtype is np.float16 else "fp32")(model)
        weights = np.random.default_rng(4).normal(size=(1024, 3, 26, 26)).astype(dtype)
        model.graph.initializer.append(numpy_helper.from_array(weights, "wide"))
        kind = helper.np_dtype_to_tensor_dtype(weights.dtype)
        model.graph.node.extend(
            [
                helper.make_node("Cast", ["image"], ["cast"], to=kind),
                helper.make_node("Conv", ["cast", "wide"], ["convolved"], name="wide"),
                helper.make_node("Cast", ["convolved"], ["deep"], to=TensorProto.FLOAT),
            ]
        )
        model.graph.output.append(helper.make_tensor_value_info("deep", TensorProto.FLOAT, ["N", 1024, 7, 7]))

    return change


def test_a_lower_precision_has_smaller_weights_in_the_plan_itself(tmp_path: Path) -> None:
    """Without a GPU, the only sight of what TensorRT made of the types."""
    sizes = {}
    for dtype in (np.float32, np.float16):
        model = red_and_blue(tmp_path / "model.onnx", contract=a_contract((32, 32)), change=with_wide_layer(dtype))
        build(model, tmp_path / f"{dtype.__name__}.engine", BuildOptions(targets=TARGETS))
        with read_engine(tmp_path / f"{dtype.__name__}.engine") as engine:
            sizes[dtype] = engine.plan.nbytes
    weights = 1024 * 3 * 26 * 26
    assert 4 * weights < sizes[np.float32] < 5 * weights
    assert 2 * weights < sizes[np.float16] < 3 * weights


def test_a_static_batch_needs_no_profile(tmp_path: Path) -> None:
    model, _ = exported(tmp_path, plain, batch=1)
    with engine_of(tmp_path, BuildOptions(targets=TARGETS)) as engine:
        check_against_the_model(engine, model)
        assert engine.header.profiles == ()
        assert engine.header.inputs[0].shape == (1, 3, 32, 32)
    with pytest.raises(gapcam.UsageError, match=r"--batch 1:4:4 was given, and exported\.onnx has a batch of 1"):
        build(tmp_path / "exported.onnx", tmp_path / "b.engine", BuildOptions(batch=(1, 4, 4), targets=TARGETS))


def test_every_class_map_is_left_out_unless_it_is_asked_for(tmp_path: Path) -> None:
    model, _ = exported(tmp_path, plain, emit=("features", "maps"))
    report = build(tmp_path / "exported.onnx", tmp_path / "without.engine", BuildOptions(targets=TARGETS))
    assert report.notes == ("the output maps is not in the engine; --keep-maps keeps it",)
    with read_engine(tmp_path / "without.engine") as engine:
        check_against_the_model(engine, model, without=("maps",))
    with engine_of(tmp_path, BuildOptions(targets=TARGETS, maps=True)) as engine:
        check_against_the_model(engine, model)


def test_a_nonlinear_heads_maps_stay_since_most_classes_have_no_row(tmp_path: Path) -> None:
    model, _ = exported(tmp_path, plain, head="nonlinear", emit=("features", "maps"), topk=2)
    with engine_of(tmp_path) as engine:
        check_against_the_model(engine, model)
        assert "maps" in [tensor.name for tensor in engine.header.outputs]


def with_open_sides(model: onnx.ModelProto) -> None:
    """H and W are symbols, in input and features."""
    for value in (model.graph.input[0], model.graph.output[1]):
        for dim, symbol in zip(value.type.tensor_type.shape.dim[2:], "HW", strict=True):
            dim.dim_param = symbol


def test_open_sides_take_the_sizes_that_were_asked_for_or_the_contracts(tmp_path: Path) -> None:
    model = red_and_blue(tmp_path / "model.onnx", contract=a_contract((6, 8)), change=with_open_sides)
    build(model, tmp_path / "a.engine", BuildOptions(targets=TARGETS))
    with read_engine(tmp_path / "a.engine") as engine:
        (profile,) = engine.header.profiles
        assert profile["image"].min == profile["image"].max == (1, 3, 6, 8)
        assert engine.header.inputs[0].shape == (None, 3, None, None)
    options = BuildOptions(batch=(1, 1, 2), sizes=((4, 4), (6, 8), (16, 12)), targets=TARGETS)
    build(model, tmp_path / "b.engine", options)
    with read_engine(tmp_path / "b.engine") as engine:
        shapes = engine.header.profiles[0]["image"]
        assert (shapes.min, shapes.opt, shapes.max) == ((1, 3, 4, 4), (1, 3, 6, 8), (2, 3, 16, 12))
        assert engine.header.options == options


def test_without_targets_it_is_for_all_that_the_library_knows_from_ampere_on(tmp_path: Path) -> None:
    model = red_and_blue(tmp_path / "model.onnx")
    report = build(model, tmp_path / "a.engine", runtime="tensorrt-rtx")
    assert report.header.targets == ("sm_80", "sm_86", "sm_89", "sm_120", "sm_121")  # not Hopper, sm_90


def test_a_model_that_is_not_in_the_precision_that_it_claims_is_an_error(tmp_path: Path) -> None:
    """What a float32 graph is that says float16: TensorRT would run it in float32 without a word."""

    model = red_and_blue(tmp_path / "model.onnx", change=claims("fp16"))
    with pytest.raises(gapcam.VerificationError, match=r"should compute in fp16, .* no layer does \(1 in fp32\)"):
        build(model, tmp_path / "a.engine", BuildOptions(targets=TARGETS))
    assert not (tmp_path / "a.engine").exists()


def foreign_operator(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Frobnicate", ["features"], ["odd"], name="my_node", domain="com.acme"))
    model.graph.output.append(helper.make_tensor_value_info("odd", TensorProto.FLOAT, None))
    model.opset_import.append(helper.make_opsetid("com.acme", 1))


def uneven_product(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.ones((7, 7), np.float32), "seven"))
    model.graph.node.append(helper.make_node("MatMul", ["vector", "seven"], ["odd"], name="uneven"))
    model.graph.output.append(helper.make_tensor_value_info("odd", TensorProto.FLOAT, None))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (foreign_operator, r"cannot read model\.onnx: Frobnicate 'my_node': it has no such operator, and no plugin"),
        (uneven_product, r"cannot read model\.onnx: MatMul 'uneven': "),
    ],
)
def test_what_tensorrt_cannot_read_is_a_line_that_names_the_node(
    tmp_path: Path, change: Callable[[onnx.ModelProto], None], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    model = red_and_blue(tmp_path / "model.onnx", change=change)
    with pytest.raises(gapcam.ModelError, match=said) as refused:
        build(model, tmp_path / "a.engine", BuildOptions(targets=TARGETS))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500
    assert capfd.readouterr() == ("", "")  # TensorRT's own messages are in it


def test_what_a_target_cannot_do_is_said_in_tensorrts_words(tmp_path: Path) -> None:
    model = red_and_blue(tmp_path / "model.onnx")
    with pytest.raises(
        gapcam.ModelError, match=r"cannot build an engine .*Turing \(SM75\): FP32 GEMM is not supported"
    ):
        build(model, tmp_path / "a.engine", BuildOptions(targets=("75",)))


def test_a_model_without_a_contract_is_refused(tmp_path: Path) -> None:
    model = red_and_blue(tmp_path / "model.onnx", metadata={})
    with pytest.raises(gapcam.ContractError, match="without gapcam's contract"):
        build(model, tmp_path / "a.engine", BuildOptions(targets=TARGETS))


def test_a_second_input_is_refused(tmp_path: Path) -> None:
    def with_another(model: onnx.ModelProto) -> None:
        model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["N"]))

    model = red_and_blue(tmp_path / "model.onnx", change=with_another)
    with pytest.raises(gapcam.ModelError, match=r"has the inputs image, mask; expected one, 'image'"):
        build(model, tmp_path / "a.engine", BuildOptions(targets=TARGETS))


def test_constants_that_are_computed_are_refused(tmp_path: Path) -> None:
    def computed(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if tensor.name == "cam_bias":
                tensor.name = "stored"
        model.graph.node.insert(0, helper.make_node("Identity", ["stored"], ["cam_bias"]))

    model = red_and_blue(tmp_path / "model.onnx", change=computed)
    with pytest.raises(gapcam.ModelError, match="computes cam_bias, which should be a constant"):
        build(model, tmp_path / "a.engine", BuildOptions(targets=TARGETS))


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"targets": ("87",)}, gapcam.UsageError, "names 87, .* does not build for; it knows 75, 80, 86, 89, 120, 121"),
        ({"targets": ("86", "86")}, gapcam.UsageError, "names 86 twice"),
        ({"version_compatible": True}, gapcam.BackendError, "no version-compatible engines; leave --version-comp"),
        ({"hardware_compatibility": "ampere-plus"}, gapcam.BackendError, "give --targets 86,89 in place of --hardware"),
        ({"dla_core": 0}, gapcam.BackendError, "--dla 0 was given, and .* finds no Deep Learning Accelerator here"),
        ({"batch": (2, 1, 4)}, gapcam.UsageError, r"--batch is 2:1:4; expected MIN:OPT:MAX, rising"),
        ({"batch": (0, 1, 4)}, gapcam.UsageError, "--batch is 0:1:4"),
        ({"level": 6}, gapcam.UsageError, "--level is 6; expected 0 to 5"),
        ({"workspace_mib": 0}, gapcam.UsageError, "--workspace is 0; expected 1 to 16777216 MiB"),
        ({"workspace_mib": 2**24 + 1}, gapcam.UsageError, "--workspace is 16777217; expected"),
        ({"batch": (1, 1, 2**31)}, gapcam.UsageError, "--batch is 1:1:2147483648; expected"),
        ({"sizes": ((4, 4), (4, 4), (4, 2**31))}, gapcam.UsageError, "--size is 4x4:4x4:4x2147483648; expected"),
        ({"sizes": ((4, 9), (4, 8), (4, 9))}, gapcam.UsageError, "--size is 4x9:4x8:4x9; expected MIN:OPT:MAX"),
        ({"sizes": ((4, 4),) * 3}, gapcam.UsageError, r"--size was given, and model\.onnx takes 2x2 \(HxW\) only"),
        ({"dla_core": 0, "batch": (1, 1, 2)}, gapcam.UsageError, "a DLA runs one shape only: give --batch N:N:N"),
    ],
)
def test_what_is_not_offered_or_makes_no_sense_is_refused(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    model = red_and_blue(tmp_path / "model.onnx")
    with pytest.raises(error, match=said):
        build(model, tmp_path / "a.engine", BuildOptions(**options), runtime="tensorrt-rtx")
    assert not (tmp_path / "a.engine").exists()


def test_options_reach_tensorrt() -> None:
    options = BuildOptions(targets=TARGETS, level=5, workspace_mib=64, tf32=False)
    builder = rtx.Builder(logger_of(rtx))
    config = EngineBuilder(rtx, "tensorrt-rtx", options, None)._config(builder, None)
    assert config.builder_optimization_level == 5
    assert config.get_memory_pool_limit(rtx.MemoryPoolType.WORKSPACE) == 64 * 2**20
    assert not config.get_flag(rtx.BuilderFlag.TF32)
    assert config.profiling_verbosity == rtx.ProfilingVerbosity.DETAILED
    asked = [config.get_compute_capability(index) for index in range(config.num_compute_capabilities)]
    assert asked == [rtx.ComputeCapability.SM86, rtx.ComputeCapability.SM89]
    own = EngineBuilder(rtx, "tensorrt-rtx", BuildOptions(), None)._config(builder, None)
    assert own.get_flag(rtx.BuilderFlag.TF32)
    assert own.get_memory_pool_limit(rtx.MemoryPoolType.WORKSPACE) > 64 * 2**20


def test_tensorrt_itself_builds_on_a_gpu_only() -> None:
    """The same classes stand in for it: it is another library with another device, not another code."""
    with pytest.raises(gapcam.BackendError, match="builds on the GPU that will run the engine, and there is none here"):
        EngineBuilder(rtx, "tensorrt", BuildOptions(), None)
    EngineBuilder(rtx, "tensorrt", BuildOptions(), Gpu("Orin", "sm_87", (12, 6)))


@pytest.mark.filterwarnings("ignore:.*no-ops in TensorRT-RTX:DeprecationWarning")
def test_timings_are_kept_and_a_damaged_cache_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT-RTX has the calls, deprecated since they measure nothing there."""
    monkeypatch.setenv("GAPCAM_CACHE_DIR", str(tmp_path))
    path = timing_cache_path("10.13.3.9", Gpu("NVIDIA GeForce RTX 4090", "sm_89", (13, 0)))
    assert path == tmp_path / "timing" / "10.13.3.9-sm_89-nvidia-geforce-rtx-4090.cache"
    config = rtx.Builder(logger_of(rtx)).create_builder_config()
    for content in (None, b"garbage"):
        if content is not None:
            path.write_bytes(content)
        cache = read_timings(config, path)
        assert cache is not None
        assert write_timings(config, path) == ""
        assert path.read_bytes() == bytes(memoryview(cache.serialize())) != content
    path.unlink()
    path.mkdir()
    assert "could not be kept" in write_timings(config, path)
    assert [file.name for file in path.parent.iterdir() if file.suffix == ".tmp"] == []
