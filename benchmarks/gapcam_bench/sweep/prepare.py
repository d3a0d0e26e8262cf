"""The file that each cell loads: the user's own, or one that is made of it once: precision, outputs, engine."""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path

import cv2
import msgspec

from gapcam.atomic_file import FULL_DISK, cannot_write, write_atomically
from gapcam.devices import parse_device
from gapcam.engine_file import BuildOptions, EngineRuntime
from gapcam.errors import BackendError, DataError, ExitCode, GapcamError, MissingExtraError
from gapcam.tensorrt_module import import_tensorrt
from gapcam_bench.cell import Cell
from gapcam_bench.sweep.axes import AS_IS
from gapcam_bench.sweep.model_outline import ModelOutline
from gapcam_bench.sweep.plan import Plan
from gapcam_bench.sweep.user_names import renamed, user_names
from gapcam_export.errors import NothingToQuantiseError
from gapcam_export.photographs import PHOTOGRAPHS, photograph

Say = Callable[[str], None]

_CALIBRATION = "calibration"
_CROPS = ((0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0), (0.5, 0.5))
_CROP_SHARE = 0.8
_LONGEST_STEM = 60
"""Bytes of a model's name that the names of files made of it begin with."""


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A cell's model.

    Attributes:
        file: its path.
        build_s: seconds that an engine took to build; None where none was built.
        notes: what a reader of the row should know.
    """

    file: str
    build_s: float | None = None
    notes: tuple[str, ...] = ()


class Unprepared(msgspec.Struct, frozen=True, kw_only=True):
    """A cell whose model could not be made.

    Attributes:
        reason: why, a sentence.
        exit_code: that goes with it; MISSING where something that it needs is not here, and nothing went wrong.
    """

    reason: str
    exit_code: ExitCode

    @property
    def failed(self) -> bool:
        """Whether something went wrong."""
        return self.exit_code != ExitCode.MISSING


def prepare(plan: Plan, folder: Path, *, say: Say = lambda _: None) -> dict[str, Prepared | Unprepared]:
    """Make all files of a plan's cells; those that an earlier run has made are used again.

    Args:
        plan: whose `measured` cells get a file each.
        folder: where they are made.
        say: is called with what is being done.

    Returns:
        By the cell's key. What cannot be made does not keep others from being made.
    """
    kitchen = _Kitchen(plan, folder, say)
    return {cell.key: kitchen.file_for(cell) for cell in plan.measured}


class _Kitchen:
    """Makes each file once a run, and remembers what could not be made."""

    def __init__(self, plan: Plan, folder: Path, say: Say) -> None:
        self._plan, self._folder, self._say = plan, folder, say
        self._made: dict[tuple[object, ...], Prepared | Unprepared] = {}

    def file_for(self, cell: Cell) -> Prepared | Unprepared:
        model = self._plan.models[cell.model]
        if model.runtime is not None:  # an engine is as it was built
            return Prepared(file=model.path)
        found = self._lowered(model, cell)
        if isinstance(found, Prepared):
            found = self._with_outputs(model, cell, found)
        if isinstance(found, Prepared):
            found = self._engine(model, cell, found)
        return found

    def _lowered(self, model: ModelOutline, cell: Cell) -> Prepared | Unprepared:
        precision = cell.precision
        if precision == AS_IS:
            return Prepared(file=model.path)
        gpu = parse_device(cell.device).kind != "cpu"
        target = "tensorrt" if gpu and precision == "int8" else None
        output = self._path(model, precision, target or "")

        def make() -> Prepared:
            from gapcam_export import PrecisionOptions, quantize

            self._say(f"making {precision} of {model.label}")
            calibrate, notes = self._calibration_folder(precision)
            options = PrecisionOptions(precision=precision, calibrate=calibrate, target=target)  # type: ignore[arg-type]  # of PRECISIONS
            with redirect_stdout(sys.stderr):
                quantize(model.path, output, options)
            return Prepared(file=str(output), notes=notes)

        return self._once((model.label, precision, target), model, output, make)

    def _with_outputs(self, model: ModelOutline, cell: Cell, source: Prepared) -> Prepared | Unprepared:
        output = self._path(model, Path(source.file).stem, cell.emit)

        def make() -> Prepared:
            from gapcam_bench.sweep.graph_outputs import write_with_outputs

            written = write_with_outputs(Path(source.file), output, cell.emit, model.head)
            return msgspec.structs.replace(source, file=str(output)) if written else source

        return self._once((source.file, cell.emit), model, output, make)

    def _engine(self, model: ModelOutline, cell: Cell, source: Prepared) -> Prepared | Unprepared:
        kind = parse_device(cell.device).kind
        if kind not in ("tensorrt", "tensorrt-rtx") or model.head is None:
            return source
        runtime: EngineRuntime = kind
        try:
            import_tensorrt(runtime)
        except (BackendError, MissingExtraError):
            return source  # ONNX Runtime's provider runs the ONNX file
        most = cell.batch
        output = self._path(model, Path(source.file).stem, f"{kind}-{most}").with_suffix(".engine")

        def make() -> Prepared:
            from gapcam_export import build

            self._say(f"building an engine of {Path(source.file).name} for {cell.device}, up to {most} images")
            batch = (1, 1, 1) if model.batch is not None else (1, most, most)
            options = BuildOptions(batch=batch, maps=cell.emit == "maps")
            began = time.perf_counter()
            with redirect_stdout(sys.stderr):
                report = build(source.file, output, options, runtime=runtime, rebuild=True, timing_cache=False)
            seconds = time.perf_counter() - began
            return Prepared(file=str(output), build_s=seconds, notes=(*source.notes, *report.notes))

        return self._once((source.file, kind, most), model, output, make)

    def _once(
        self, key: tuple[object, ...], model: ModelOutline, output: Path, make: Callable[[], Prepared]
    ) -> Prepared | Unprepared:
        if key not in self._made:
            self._made[key] = self._kept(output) or self._tried(model, output, make)
        return self._made[key]

    def _kept(self, output: Path) -> Prepared | None:
        """What an earlier run has noted; it does so when the file is complete."""
        try:
            found = msgspec.json.decode(_note(output).read_bytes(), type=Prepared)
        except (OSError, msgspec.DecodeError):
            return None
        return found if Path(found.file).is_file() else None

    def _tried(self, model: ModelOutline, output: Path, make: Callable[[], Prepared]) -> Prepared | Unprepared:
        def reason(error: Exception, before: str = "") -> str:
            # What cannot be written is not the user's file.
            file = model.path if isinstance(error, DataError) else str(output)
            names = user_names(self._plan, model, file)
            return before + renamed(" ".join(str(error).split()), names, model.label)

        try:
            made = make()
        except ModuleNotFoundError as error:
            return Unprepared(reason=f"{error.name} is not installed, and this needs it", exit_code=ExitCode.MISSING)
        except (BackendError, MissingExtraError, NothingToQuantiseError) as error:
            return Unprepared(reason=reason(error), exit_code=ExitCode.MISSING)
        except GapcamError as error:
            output.unlink(missing_ok=True)
            return Unprepared(reason=reason(error), exit_code=error.exit_code)
        # What writers of models raise has no common type: ValueError of symbolic shapes, protobuf's errors of more than
        # 2 GB, OSError. One cell's does not end the others.
        except Exception as error:  # noqa: BLE001
            output.unlink(missing_ok=True)
            if isinstance(error, OSError) and error.errno in FULL_DISK:
                full = cannot_write(error.filename or output, error)
                return Unprepared(reason=reason(full), exit_code=full.exit_code)
            kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
            return Unprepared(reason=reason(error, f"{kind}: "), exit_code=ExitCode.MODEL)
        write_atomically(_note(output), msgspec.json.encode(made))
        return made

    def _path(self, model: ModelOutline, *parts: str) -> Path:
        """A name that tells people what it is, and that two models never share."""
        digest = hashlib.sha256("/".join((model.sha256, *parts)).encode()).hexdigest()[:8]
        stem = model.stem.encode()[:_LONGEST_STEM].decode(errors="ignore")
        words = [stem, *(part for part in parts[-1:] if part)]
        return self._folder / ("-".join((*words, digest)) + ".onnx")

    def _calibration_folder(self, precision: str) -> tuple[Path | None, tuple[str, ...]]:
        if precision == "bf16":
            return None, ()
        if self._plan.calibrate is not None:
            return Path(self._plan.calibrate), ()
        if precision == "fp16":
            return None, ()
        folder = self._folder / _CALIBRATION
        folder.mkdir(exist_ok=True)
        write_crops(folder)
        return folder, (
            "calibrated on crops of scikit-image's photographs: right for speed, not for accuracy; --calibrate DIR "
            "takes images like the camera's",
        )


def write_crops(folder: Path) -> None:
    """Forty pictures to calibrate on, where the user gives none: parts of four photographs, and their mirror images."""
    for name in PHOTOGRAPHS:
        picture = photograph(name)
        height, width = (round(_CROP_SHARE * side) for side in picture.shape[:2])
        for number, (down, right) in enumerate(_CROPS):
            top, left = (
                round(at * (side - part))
                for at, side, part in zip((down, right), picture.shape[:2], (height, width), strict=True)
            )
            crop = picture[top : top + height, left : left + width]
            for flipped in (False, True):
                written = cv2.flip(crop, 1) if flipped else crop
                encoded = cv2.imencode(".png", written, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1]
                (folder / f"{name}-{number}{'-mirrored' * flipped}.png").write_bytes(encoded.tobytes())


def _note(output: Path) -> Path:
    return output.with_name(output.name + ".json")
