"""Engines are built for the GPU that is here, fit it, open on it, and compute in what the model computes in."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from calibration_images import write_photographs
from small_quantizable import exported, residual

from gapcam.engine_file import EngineRuntime, read_engine
from gapcam.engine_fit import DeviceFacts, covers, differences, this_platform
from gapcam.errors import GapcamError
from gapcam.tensorrt_log import collected, logger_of
from gapcam.tensorrt_module import import_tensorrt
from gapcam_export import BuildOptions, PrecisionOptions, build
from gapcam_export.engines.gpu import Gpu, first_gpu


@pytest.fixture
def gpu() -> Gpu:
    """The GPU that engines are built on."""
    found = first_gpu()
    if found is None or "not a GPU" in found.name:
        pytest.skip("no GPU that TensorRT could build on")
    return found


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def runtime(request: pytest.FixtureRequest, gpu: Gpu) -> tuple[EngineRuntime, ModuleType]:
    """Each of the two that is installed, and that knows this GPU."""
    name: EngineRuntime = request.param
    try:
        module = import_tensorrt(name)
    except GapcamError as error:
        pytest.skip(str(error))
    target = gpu.architecture.removeprefix("sm_")
    if name == "tensorrt-rtx" and f"SM{target}" not in module.ComputeCapability.__members__:
        pytest.skip(f"TensorRT-RTX {module.__version__} does not know {gpu.architecture}")
    return name, module


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_an_engine_is_built_for_this_gpu_opens_here_and_keeps_the_models_precision(
    runtime: tuple[EngineRuntime, ModuleType], gpu: Gpu, tmp_path: Path, precision: Any
) -> None:
    name, module = runtime
    if precision == "bf16" and not covers("sm_80+", gpu.architecture):
        pytest.skip(f"{gpu.architecture} has no bfloat16")
    how: dict[str, Any] = {"precision": precision}
    if precision == "int8":
        how |= {"calibrate": write_photographs(tmp_path / "photos"), "target": "tensorrt"}
    exported(tmp_path, residual, precision=None if precision == "fp32" else PrecisionOptions(**how))
    options = BuildOptions(batch=(1, 2, 4))
    report = build(tmp_path / "exported.onnx", tmp_path / "model.engine", options, runtime=name)
    header = report.header
    assert report.built
    assert any(covers(target, gpu.architecture) for target in header.targets)
    assert header.device == (gpu.name if name == "tensorrt" else "")
    here = DeviceFacts(
        runtime=name,
        runtime_version=module.__version__,
        platform=this_platform(),
        architecture=gpu.architecture,
        device=gpu.name,
        cuda_driver=gpu.cuda_driver,
    )
    assert differences(header, here) == []
    assert header.precision.asked == precision
    if name == "tensorrt":
        assert header.precision.not_read == ""
        assert set(header.precision.engine) <= {precision, "fp32", "fp16"}
        assert header.precision.engine[precision] > 0
    else:  # one block, compiled when it is loaded
        assert header.precision.engine or header.precision.not_read
    with read_engine(tmp_path / "model.engine") as file, collected(module) as said:
        library = module.Runtime(logger_of(module))
        engine = library.deserialize_cuda_engine(file.plan)
        assert engine is not None, said
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        assert names == [tensor.name for tensor in (*header.inputs, *header.outputs)]
        assert tuple(engine.get_tensor_profile_shape("image", 0)[2]) == (4, 3, 32, 32)
    assert not build(tmp_path / "exported.onnx", tmp_path / "model.engine", options, runtime=name).built
