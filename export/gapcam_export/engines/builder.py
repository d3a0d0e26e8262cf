"""Builds a TensorRT plan. TensorRT 10, 11 and TensorRT-RTX are told apart by what they offer, not by their versions."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from gapcam.contract import IMAGE, Contract
from gapcam.engine_file import BuildOptions, BuiltPrecision, EngineRuntime, EngineTensor, ShapeRange
from gapcam.engine_fit import covers
from gapcam.errors import BackendError, ModelError, UsageError
from gapcam.tensorrt_log import collected, logger_of
from gapcam.tensorrt_module import TITLES
from gapcam_export.engines.built_precision import built_precision, check_network, network_layers
from gapcam_export.engines.engine_graph import EngineGraph
from gapcam_export.engines.gpu import Gpu
from gapcam_export.engines.monitor import STEP, BuildProgress, new_monitor
from gapcam_export.engines.parsing import parse
from gapcam_export.engines.timing_cache import read_timings, write_timings
from gapcam_export.progress import Progress

_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}
"""TensorRT's names of types where NumPy's differ by more than case."""
_MIB = 2**20
_AMPERE = 80
"""Compute capability from which on TensorRT-RTX builds without --targets (its documentation, "CPU-Only AOT")."""


@dataclass(frozen=True)
class BuiltPlan:
    """What TensorRT made of a model.

    Attributes:
        plan: the serialised engine.
        inputs: of the network.
        outputs: of the network.
        targets: the GPU architectures that it runs on, as `EngineHeader.targets`.
        precision: what it computes in.
        notes: TensorRT's warnings, and what the user should know.
    """

    plan: memoryview
    inputs: tuple[EngineTensor, ...]
    outputs: tuple[EngineTensor, ...]
    targets: tuple[str, ...]
    precision: BuiltPrecision
    notes: tuple[str, ...]


class EngineBuilder:
    """A runtime that builds engines with certain options, for a certain GPU or for several.

    Args:
        module: from `import_tensorrt`.
        runtime: which of the two it is.
        options: how to build.
        gpu: what is here; None where there is none.

    Raises:
        BackendError: it builds on a GPU only and there is none, or does not offer what was asked for.
        UsageError: a target that it does not know.
    """

    def __init__(self, module: ModuleType, runtime: EngineRuntime, options: BuildOptions, gpu: Gpu | None) -> None:
        self._trt, self._runtime, self._options, self._gpu = module, runtime, options, gpu
        self.title = f"{TITLES[runtime]} {module.__version__}"
        self._check_offered()

    def build(
        self,
        graph: EngineGraph,
        contract: Contract,
        profile: ShapeRange | None,
        name: str,
        *,
        timings: Path | None,
        progress: Progress,
    ) -> BuiltPlan:
        """Build an engine. Ctrl-C stops it at TensorRT's next step.

        Args:
            graph: the model.
            contract: its contract.
            profile: the shapes of `image` that it is to take; None where its shape is fixed.
            name: how messages call the model.
            timings: the timing cache; None for none.
            progress: is called with the phase and with percents.

        Raises:
            ModelError: the model uses what TensorRT does not know, or cannot be built.
            VerificationError: the engine does not compute in the contract's precision.
        """
        trt = self._trt
        with collected(trt) as said:
            try:
                builder = trt.Builder(logger_of(trt))
            except TypeError as error:  # what its binding raises in place of nothing
                raise BackendError(f"{self.title} cannot build here: {_joined(said)}") from error
            self._check_dla(builder, contract)
            network = builder.create_network(self._network_flags())
            parser = trt.OnnxParser(network, logger_of(trt))
            if self._options.dla_core is not None and hasattr(trt.OnnxParserFlag, "ADJUST_FOR_DLA"):
                parser.set_flag(trt.OnnxParserFlag.ADJUST_FOR_DLA)
            parse(parser, graph.content, name, self.title)
            said.clear()  # the parser's warnings are about weights that it converts
            counted = network_layers(network)
            check_network(counted, contract.precision, name)
            config = self._config(builder, profile)
            cache = None if timings is None else read_timings(config, timings)
            plan = self._plan(builder, network, config, name, said, progress)
            notes = list(said)
            if timings is not None and cache is not None:
                notes += [note for note in (write_timings(config, timings),) if note]
            tensors = {
                kind: tuple(_tensor(get(index)) for index in range(count))
                for kind, get, count in (
                    ("inputs", network.get_input, network.num_inputs),
                    ("outputs", network.get_output, network.num_outputs),
                )
            }
            progress("reading back what it computes in")
            information, why_not = self._inspect(plan, profile, said)
        precision = built_precision(counted, contract.precision, information, why_not, name)
        return BuiltPlan(plan, tensors["inputs"], tensors["outputs"], self._targets(), precision, tuple(notes))

    def _network_flags(self) -> int:
        """TensorRT 10 is told that the model's types are meant; 11 and TensorRT-RTX know no other networks."""
        flag = getattr(self._trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return 0 if flag is None else 1 << int(flag)

    def _config(self, builder: Any, profile: ShapeRange | None) -> Any:
        trt, options = self._trt, self._options
        config = builder.create_builder_config()
        if profile is not None:
            shapes = builder.create_optimization_profile()
            shapes.set_shape(IMAGE, profile.min, profile.opt, profile.max)
            config.add_optimization_profile(shapes)
        if options.workspace_mib is not None:
            config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * _MIB)
        if options.level is not None:
            config.builder_optimization_level = options.level
        if not options.tf32:
            config.clear_flag(trt.BuilderFlag.TF32)
        if options.version_compatible:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        if options.hardware_compatibility != "none":
            level = options.hardware_compatibility.replace("-", "_").upper()
            config.hardware_compatibility_level = getattr(trt.HardwareCompatibilityLevel, level)
        if options.targets:
            config.num_compute_capabilities = len(options.targets)
            for index, target in enumerate(options.targets):
                config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{target}"), index)
        if options.dla_core is not None:
            config.default_device_type = trt.DeviceType.DLA
            config.DLA_core = options.dla_core
            config.set_flag(trt.BuilderFlag.GPU_FALLBACK)
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # what the inspector shows
        return config

    def _plan(
        self, builder: Any, network: Any, config: Any, name: str, said: list[str], progress: Progress
    ) -> memoryview:
        """Build in a thread of its own, so that Ctrl-C is heard while TensorRT is at a long step."""
        build = BuildProgress(progress)
        progress(STEP)
        if hasattr(self._trt, "IProgressMonitor"):
            config.progress_monitor = new_monitor(self._trt, build)
        with ThreadPoolExecutor(1) as thread:
            interrupted = False
            try:
                built = thread.submit(builder.build_serialized_network, network, config)
                while not built.done():
                    if _interrupted(built):
                        interrupted = True
                        build.stop()
            finally:
                build.stop()  # where it is not done, or the thread would be waited for to the end
        config.progress_monitor = None
        if interrupted:
            raise KeyboardInterrupt
        if build.error is not None:
            raise build.error
        plan = built.result()
        if plan is None:
            raise ModelError(
                f"{self.title} cannot build an engine of {name}: {_joined(said)}. Try another precision or --level, "
                "more --workspace, or other --targets"
            )
        return memoryview(plan)

    def _inspect(self, plan: memoryview, profile: ShapeRange | None, said: list[str]) -> tuple[str | None, str]:
        """What the engine inspector tells of a plan, as JSON, or None and why there is nothing to tell."""
        trt = self._trt
        if self._gpu is None:
            return None, "there is no GPU here to open the engine on"
        if not any(covers(target, self._gpu.architecture) for target in self._targets()):
            return None, f"the engine is not for the GPU that is here ({self._gpu.name}, {self._gpu.architecture})"
        said.clear()
        runtime = trt.Runtime(logger_of(trt))
        if self._options.version_compatible and hasattr(runtime, "engine_host_code_allowed"):
            runtime.engine_host_code_allowed = True  # it carries the lean runtime of the library that built it just now
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None and self._runtime == "tensorrt-rtx":  # the engine may be for other machines
            return None, f"the engine does not open on {self._gpu.name}: {_joined(said)}"
        if engine is None:
            raise ModelError(f"{self.title} built an engine that does not open on {self._gpu.name}: {_joined(said)}")
        inspector = engine.create_engine_inspector()
        if profile is not None:  # types of layers with open shapes are known where the shapes are
            context = engine.create_execution_context()
            if context is not None and context.set_input_shape(IMAGE, profile.opt):
                inspector.execution_context = context
        return inspector.get_engine_information(trt.LayerInformationFormat.JSON), ""

    def _targets(self) -> tuple[str, ...]:
        options = self._options
        if options.targets:
            return tuple(f"sm_{target}" for target in options.targets)
        if self._runtime == "tensorrt-rtx":  # not simply "sm_80+": it does not run on Hopper, nor on what it never knew
            return tuple(f"sm_{target}" for target in self._known_targets() if int(target) >= _AMPERE)
        assert self._gpu is not None  # noqa: S101 - _check_offered has refused that
        return (f"sm_{_AMPERE}+" if options.hardware_compatibility == "ampere-plus" else self._gpu.architecture,)

    def _known_targets(self) -> list[str]:
        """The compute capabilities that the library can name."""
        return sorted(
            (member.removeprefix("SM") for member in self._trt.ComputeCapability.__members__ if member[:2] == "SM"),
            key=int,
        )

    def _check_offered(self) -> None:
        trt, options = self._trt, self._options
        ahead = self._runtime == "tensorrt-rtx"
        if not ahead and self._gpu is None:
            raise BackendError(
                f"{self.title} builds on the GPU that will run the engine, and there is none here (no driver, or no "
                "device that it sees). Build on the device; or ahead of time, for other machines' GPUs, with: "
                "--runtime tensorrt-rtx --targets 86,89"
            )
        self._check_targets(offered=hasattr(trt.IBuilderConfig, "set_compute_capability"))
        if options.version_compatible and (ahead or not hasattr(trt.BuilderFlag, "VERSION_COMPATIBLE")):
            raise BackendError(f"{self.title} builds no version-compatible engines; leave --version-compatible out")
        if options.hardware_compatibility != "none":
            level = options.hardware_compatibility.replace("-", "_").upper()
            if ahead:
                raise BackendError(
                    f"{self.title} builds for several GPUs by their compute capabilities; give --targets 86,89 in "
                    "place of --hardware-compatible, or nothing for all that it knows from Ampere on"
                )
            if not hasattr(getattr(trt, "HardwareCompatibilityLevel", None), level):
                raise BackendError(
                    f"{self.title} does not offer --hardware-compatible {options.hardware_compatibility}; update it, "
                    "or leave the option out"
                )

    def _check_targets(self, *, offered: bool) -> None:
        if not self._options.targets:
            return
        if not offered:
            raise BackendError(
                f"{self.title} builds for the GPU that it runs on; leave --targets out, or build with --runtime "
                "tensorrt-rtx"
            )
        known = self._known_targets()
        unknown = [target for target in self._options.targets if target not in known]
        if unknown:
            raise UsageError(
                f"--targets names {', '.join(unknown)}, which {self.title} does not build for; it knows "
                f"{', '.join(known)}"
            )

    def _check_dla(self, builder: Any, contract: Contract) -> None:
        core = self._options.dla_core
        if core is None:
            return
        cores = builder.num_DLA_cores if hasattr(self._trt.DeviceType, "DLA") else 0
        if cores == 0:
            raise BackendError(
                f"--dla {core} was given, and {self.title} finds no Deep Learning Accelerator here; Jetson Orin and "
                "Xavier have one, other GPUs do not. Leave it out"
            )
        if not 0 <= core < cores:
            raise UsageError(f"--dla is {core}; expected a core from 0 to {cores - 1}")
        if contract.precision not in ("fp16", "int8"):
            raise UsageError(
                f"--dla was given, and the model computes in {contract.precision}; a DLA computes in fp16 and int8. "
                "Make one with: gapcam quantize MODEL.onnx -o model.fp16.onnx --precision fp16"
            )


def _interrupted(work: Future[Any]) -> bool:
    """Wait a moment for work to be done; whether Ctrl-C came meanwhile."""
    try:
        wait([work], timeout=0.1)
    except KeyboardInterrupt:
        return True
    return False


def _tensor(tensor: Any) -> EngineTensor:
    dtype = tensor.dtype.name
    shape = tuple(None if side < 0 else int(side) for side in tensor.shape)
    return EngineTensor(name=tensor.name, shape=shape, dtype=_DTYPES.get(dtype, dtype.lower()))


def _joined(said: list[str]) -> str:
    return "; ".join(said[:3]).rstrip(".") or "it gave no reason"
