"""From an exported ONNX model to a TensorRT engine: the order of the steps."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path

from gapcam import __version__
from gapcam.atomic_file import check_spares, check_writable
from gapcam.contract import IMAGE
from gapcam.engine_file import BuildOptions, EngineHeader, EngineRuntime, write_engine
from gapcam.engine_fit import DeviceFacts, this_platform
from gapcam.errors import BackendError, ContractError, DataError, MissingExtraError, ModelError, UsageError
from gapcam.tensorrt_module import TensorRTAbsentError, import_tensorrt

try:
    import onnx  # noqa: F401 - of all that the modules below need, what may be absent
    from filelock import FileLock, Timeout
except ModuleNotFoundError as missing:
    raise MissingExtraError(missing.name or "onnx", "tensorrt") from missing

from gapcam_export.engines.builder import EngineBuilder
from gapcam_export.engines.engine_graph import engine_graph
from gapcam_export.engines.existing import wanted_engine
from gapcam_export.engines.gpu import first_gpu
from gapcam_export.engines.options import check_options
from gapcam_export.engines.profiles import profile
from gapcam_export.engines.report import BuildReport
from gapcam_export.engines.timing_cache import timing_cache_path
from gapcam_export.progress import Progress, silent
from gapcam_export.sources import OnnxSource, read_onnx

_NOTES = 5
"""Of TensorRT's warnings are shown."""


def build(
    model: str | Path,
    output: str | Path,
    options: BuildOptions | None = None,
    *,
    runtime: EngineRuntime | None = None,
    rebuild: bool = False,
    timing_cache: bool = True,
    progress: Progress = silent,
) -> BuildReport:
    """Build a TensorRT engine of an exported model.

    An engine that is already there and is what would be built stays as it is. Two processes that build the same file
    do it one after the other, and the second keeps what the first has built.

    Args:
        model: an ONNX file that `gapcam export` or `gapcam quantize` wrote.
        output: the file to write. It appears last, whole, or not at all.
        options: how to build.
        runtime: "tensorrt" or "tensorrt-rtx"; None for TensorRT-RTX where `options` names targets, else for the first
            that is installed.
        rebuild: replace what is there.
        timing_cache: let TensorRT use what it measured in earlier builds, and keep what it measures.
        progress: is called with what is being done, and with percents of the build.

    Returns:
        What was built, and what it computes in.

    Raises:
        ModelError: the model cannot be read or built, or `output` is there and is something else.
        ContractError: the model has no contract.
        VerificationError: the engine does not compute in the model's precision.
        BackendError: TensorRT is not installed or too old, there is no GPU, or it does not offer what was asked for.
        MissingExtraError: TensorRT-RTX is not installed.
        DataError: the file cannot be written.
        UsageError: an option is out of its range, contradicts another, or does not fit the model.

    Example:
        >>> options = BuildOptions(batch=(1, 1, 4), targets=("86", "89"))  # doctest: +SKIP
        >>> build("model.onnx", "model.engine", options).header.precision.network  # doctest: +SKIP
        {'fp32': 52}
    """
    begin = time.monotonic()
    model, output, options = Path(model), Path(output), options or BuildOptions()
    check_options(options)
    check_writable(output)
    check_spares(output, [model])
    _check_name(output)
    chosen = runtime or _installed(options)
    module = import_tensorrt(chosen)
    gpu = first_gpu()
    builder = EngineBuilder(module, chosen, options, gpu)
    # TensorRT-RTX builds for its targets, whatever is here.
    here = gpu if chosen == "tensorrt" else None
    device = DeviceFacts(
        runtime=chosen,
        runtime_version=str(module.__version__),
        platform=this_platform(),
        architecture="" if here is None else here.architecture,
        device="" if here is None else here.name,
        cuda_driver=None if here is None else here.cuda_driver,
    )
    progress(f"reading {model}")
    source = read_onnx(model)
    if source.contract is None:
        raise ContractError(
            f"{model} is an ONNX model without gapcam's contract. Make one that has it with: gapcam export {model} -o "
            "exported.onnx"
        )
    check_spares(output, source.weight_files)
    before = _state(output)
    with _locked(output, progress):
        changed = _state(output) != before  # by whoever was waited for, if it did not fail
        if changed or not rebuild:
            header = _kept(output, source, options, device, rebuild=rebuild)
            if header is not None:
                note = "it was built by another process meanwhile" if changed else "it is up to date; nothing was built"
                seconds = time.monotonic() - begin
                return BuildReport(output, output.stat().st_size, header, False, (note,), seconds)
        graph = engine_graph(source.model, source.contract, model.name, maps=options.maps)
        shapes = profile(graph.image_shape, source.contract, options, model.name)
        timings = None
        if timing_cache and chosen == "tensorrt" and gpu is not None:  # TensorRT-RTX measures nothing when it builds
            timings = timing_cache_path(device.runtime_version, gpu)
        plan = builder.build(graph, source.contract, shapes, model.name, timings=timings, progress=progress)
        header = EngineHeader(
            producer=f"gapcam {__version__}",
            runtime=chosen,
            runtime_version=device.runtime_version,
            platform=device.platform,
            targets=plan.targets,
            device="" if here is None else here.name,
            cuda_driver=device.cuda_driver,
            model=model.name,
            model_sha256=source.sha256,
            options=options,
            profiles=() if shapes is None else ({IMAGE: shapes},),
            inputs=plan.inputs,
            outputs=plan.outputs,
            precision=plan.precision,
            metadata={entry.key: entry.value for entry in source.model.metadata_props},
        )
        progress(f"writing {output}")
        write_engine(output, header, graph.constants, plan.plan)
    dropped = [f"the output {name} is not in the engine; --keep-maps keeps it" for name in graph.dropped]
    said = [f"TensorRT: {note}" for note in plan.notes[:_NOTES]]
    if len(plan.notes) > _NOTES:
        said.append(f"TensorRT: and {len(plan.notes) - _NOTES} more warnings")
    seconds = time.monotonic() - begin
    return BuildReport(output, output.stat().st_size, header, True, (*dropped, *said), seconds)


def _installed(options: BuildOptions) -> EngineRuntime:
    """The runtime that nobody named."""
    if options.targets:
        return "tensorrt-rtx"
    try:
        import_tensorrt("tensorrt")
    except BackendError as error:
        try:
            import_tensorrt("tensorrt-rtx")
        except MissingExtraError:
            raise error from None
        except BackendError:
            if isinstance(error, TensorRTAbsentError):
                raise
            raise error from None
        if isinstance(error, TensorRTAbsentError):
            return "tensorrt-rtx"
        # Whoever has installed it means to use it: the other one's engines do not run with it.
        raise BackendError(
            f"{error}. Or build with TensorRT-RTX, which is here, too: --runtime tensorrt-rtx"
        ) from error
    return "tensorrt"


def _state(path: Path) -> tuple[int, int] | None:
    """What is another whenever a file was replaced; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _kept(
    output: Path, source: OnnxSource, options: BuildOptions, device: DeviceFacts, *, rebuild: bool
) -> EngineHeader | None:
    """The header of the engine that is there, if it is what was asked for."""
    try:
        return wanted_engine(output, source.sha256, options, device)
    except ModelError:
        if rebuild:
            return None
        raise


def _check_name(output: Path) -> None:
    if output.suffix.lower() == ".onnx":
        raise UsageError(f"{output} has the name of an ONNX model; give the engine another, such as model.engine")


@contextmanager
def _locked(output: Path, progress: Progress) -> Iterator[None]:
    """Keep other processes from building the same file."""
    target = output.resolve()
    # Not named after the file, whose name may be as long as a name can be.
    digest = sha256(os.fsencode(target.name)).hexdigest()[:16]
    lock = FileLock(target.with_name(f".gapcam-{digest}.lock"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress(f"another process builds {output}; waiting for it")
            lock.acquire(poll_interval=0.2)
    except (OSError, NotImplementedError) as error:
        raise DataError(f"cannot write {output}: its lock cannot be taken ({error}); choose another place") from error
    try:
        yield
    finally:
        with suppress(OSError):
            Path(lock.lock_file).unlink()  # who waits for it notices, or builds what is then found to be there
        lock.release()
