"""A loaded model: frames in, results out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from types import TracebackType

import numpy as np

from gapcam import contract as names
from gapcam.backends.protocol import CLOSED, Array, Backend, TensorInfo
from gapcam.cam import FloatArray
from gapcam.class_rows import OUTPUTS_OF_EACH_IMAGE, rows_of_image
from gapcam.classes import ClassNames, ClassRef
from gapcam.contract import Contract, HeadKind, contract_from_metadata
from gapcam.errors import BackendError, UsageError, VerificationError
from gapcam.frame import Frame, check_frame
from gapcam.geometry import place
from gapcam.identity import DEVICE_TOLERANCE, GREATEST_TOLERANCE, identity_error, maps_error, tangent_error
from gapcam.model_check import check_model, check_outputs, check_run
from gapcam.preprocessing import empty_input, fill_input
from gapcam.result import Result

MAX_THREADS = 1024
"""More than a device has cores: a slip of the pen."""

_DEVICES = ("auto", "cpu")

_AT_LOAD = {
    HeadKind.AFFINE: (names.CAM_WEIGHTS, names.CAM_BIAS),
    HeadKind.LAYERNORM: (names.CAM_WEIGHTS, names.CAM_BIAS),
    HeadKind.NONLINEAR: (names.TOPK_BIAS,),
}
"""What the check of the identity needs beside what maps need, by the head's kind."""


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "auto",
    threads: int | None = None,
    provider_options: Mapping[str, str] | None = None,
    session_options: Mapping[str, object] | None = None,
    verify: bool = True,
) -> Session:
    """Load a model that keeps gapcam's contract.

    Args:
        path: of a .onnx file made by `gapcam export`.
        device: "cpu", or "auto" for the best there is, which in this version is the CPU.
        threads: that one inference may use, 1 to 1024; by default every physical core.
        provider_options: of ONNX Runtime's execution provider, handed through. The CPU provider ignores all of them.
        session_options: of ONNX Runtime: configuration entries ("session.intra_op.allow_spinning": "0"), of which it
            ignores those that it does not know, and attributes of its SessionOptions, also as text
            ("graph_optimization_level": "ORT_DISABLE_ALL", "enable_profiling": "true").
        verify: check on a real run that logit_c = mean(M_c) + b_c, of a nonlinear head for the classes that have rows.
            Without it, maps of a broken model are wrong without a word.

    Raises:
        ModelError: the file is missing, no ONNX model, damaged, or its tensors are not those that its contract names.
        ContractError: it has no contract, a damaged one, or one of a newer version.
        VerificationError: the identity does not hold on this device.
        UsageError: `threads` is out of its range.
        BackendError: the device is not available, or a session option is not understood.
        MissingExtraError: the package that runs the model is not installed.

    Example:
        >>> with gapcam.load("model.onnx", threads=1) as session:  # doctest: +SKIP
        ...     print(session(frame).top[0].label)
    """
    if device not in _DEVICES:
        raise BackendError(f"device {device!r} is not available; this version of gapcam runs on: {', '.join(_DEVICES)}")
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise UsageError(
            f"threads is {threads}; give a number from 1 to {MAX_THREADS}, or none for every physical core"
        )
    from gapcam.backends.onnxruntime import OnnxRuntimeBackend  # here, because the engine is an extra

    backend = OnnxRuntimeBackend(
        Path(path), threads=threads, provider_options=provider_options, session_options=session_options
    )
    try:
        return Session(backend, name=os.fspath(path), verify=verify)
    except BaseException:
        backend.close()
        raise


class Session:
    """A model on a backend, checked against its contract. `gapcam.load` makes one.

    Use it as a context manager, or call `close`. With ONNX Runtime, several threads may call one session, and one may
    close it: inferences that have begun are finished, later ones raise UsageError.

    Args:
        backend: a loaded model; the session closes it.
        name: how messages call the model.
        verify: as in `load`.

    Attributes:
        contract: what the model says of itself.
        labels: K labels; "class 17" and so on where the model has none.
        exact: whether a map is all that its logit is made of, up to the bias; False for a nonlinear head, whose
            gradient at each image stands for it.
        weights: [K,C] float32, the matrix W; None where the features are the class maps and W is the identity, and for
            a nonlinear head, which has no rows but each image's.
        bias: [K] float32, the vector b; None for zeros, and for a nonlinear head.
        map_size: (h, w) of the feature maps, and so of a raw class activation map.
        identity_error: of the identity on this device, or of the tangent for a nonlinear head: see `gapcam.identity`.
        identity_tolerance: what that may be.
        engine: what runs the model.

    Raises:
        ModelError, ContractError, VerificationError: as in `load`.
    """

    def __init__(self, backend: Backend, *, name: str = "the model", verify: bool = True) -> None:
        self.name = name
        self.contract: Contract = contract_from_metadata(backend.metadata, name)
        check_model(backend, self.contract, name)
        self.engine = backend.engine
        self.inputs, self.outputs = dict(backend.inputs), dict(backend.outputs)
        self._backend: Backend | None = backend
        self._batched = self.inputs[names.IMAGE].shape[0] is None

        kind = self.contract.head.kind
        self.exact = self.contract.head.exact
        self._wanted = (names.LOGITS, names.FEATURES, *OUTPUTS_OF_EACH_IMAGE.get(kind, ()))
        if kind is HeadKind.NONLINEAR and names.MAPS in self.outputs:
            self._wanted += (names.MAPS,)  # for the classes that have no row

        probe = self._probe()
        self.map_size = (probe[names.FEATURES].shape[2], probe[names.FEATURES].shape[3])
        self.classes = ClassNames(self.contract.labels, probe[names.LOGITS].shape[1])
        self.labels = self.classes.labels
        self.weights = _as_float32(probe.get(names.CAM_WEIGHTS))
        self.bias = _as_float32(probe.get(names.CAM_BIAS))
        self.identity_error = _error_of_identity(probe)
        given = self.contract.verification.identity_tolerance
        self.identity_tolerance = min(max(DEVICE_TOLERANCE, given), GREATEST_TOLERANCE)
        # Not "error > tolerance": NaN must fail too.
        if verify and not self.identity_error <= self.identity_tolerance:
            raise VerificationError(
                f"{name} is not right on {self.engine}: logits differ from mean(map) + bias by "
                f"{self.identity_error:.2g} of the greatest of them; at most {self.identity_tolerance:.2g} was "
                "expected. Its maps would be wrong; export it again, or try another device."
            )

    def _probe(self) -> dict[str, Array]:
        """One run on noise: reads W and b, which no later run asks for, and gives what the identity is checked on."""
        height, width = self.contract.preprocessing.size
        noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        tensor = empty_input(1, self.contract.preprocessing)
        fill_input(noise, self.contract.preprocessing, place((height, width), self.contract.preprocessing), tensor[0])
        wanted = (*self._wanted, *_AT_LOAD.get(self.contract.head.kind, ()))
        arrays = dict(zip(wanted, self._opened().run(wanted, tensor), strict=True))
        # Again on what came: a side that the model leaves open may be anything.
        found = {name: TensorInfo(name, array.shape, str(array.dtype)) for name, array in arrays.items()}
        check_outputs(found, self.contract, self.name)
        return arrays

    def __call__(self, frame: Frame) -> Result:
        """Classify one frame.

        Args:
            frame: H x W x 3 uint8 BGR. The result keeps a reference to it, not a copy: where a camera reuses its
                buffer, draw the overlay before the next frame or hand over a copy.

        Raises:
            FrameError: `frame` has another type, dtype or layout.
            VerificationError: the logits are not finite.
            ModelError: the model gave another number of results than of frames.
            BackendError: the engine failed.
            UsageError: the session is closed.
        """
        check_frame(frame)
        return self._run([frame])[0]

    def batch(self, frames: Sequence[Frame]) -> list[Result]:
        """Classify several frames, of whatever sizes, in one inference.

        A model that was exported for a batch of 1 runs them one after another.

        Raises:
            FrameError: one of `frames` has another type, dtype or layout; the message says which.
            VerificationError, ModelError, BackendError, UsageError: as for one frame.
        """
        for index, frame in enumerate(frames):
            check_frame(frame, f"frame {index} of the batch: ")
        if self._batched:
            return self._run(frames) if len(frames) else []
        return [self._run([frame])[0] for frame in frames]

    def infer(self, image: Array) -> dict[str, Array]:
        """Run the network alone, on images that are preprocessed already: for measuring how long that takes.

        Args:
            image: [N,3,H,W] float32, or [N,H,W,3] uint8 where the preprocessing is in the graph: what
                `gapcam.preprocess` gives, with the batch before it. N is 1 for a model that was exported so.

        Returns:
            The outputs that results are made of, by name: `logits`, `features`, and what the head's kind needs.

        Raises:
            BackendError: the engine failed.
            UsageError: the session is closed.
        """
        return dict(zip(self._wanted, self._opened().run(self._wanted, image), strict=True))

    def index(self, target: ClassRef) -> int:
        """The index of a class given by its index or label.

        Raises:
            ClassNotFoundError: there is no such class, or several share the label.
        """
        return self.classes.resolve(target)

    def close(self) -> None:
        """Give the model's memory back. Results stay usable. Closing twice does nothing."""
        backend, self._backend = self._backend, None
        if backend is not None:
            backend.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _opened(self) -> Backend:
        if self._backend is None:
            raise UsageError(CLOSED)
        return self._backend

    def _run(self, frames: Sequence[Frame]) -> list[Result]:
        self._opened()  # before any work
        preprocessing = self.contract.preprocessing
        tensor = empty_input(len(frames), preprocessing)
        placements, preprocess_ms = [], []
        for frame, slot in zip(frames, tensor, strict=True):
            started = perf_counter()
            placements.append(place((frame.shape[0], frame.shape[1]), preprocessing))
            fill_input(frame, preprocessing, placements[-1], slot)
            preprocess_ms.append((perf_counter() - started) * 1e3)
        started = perf_counter()
        arrays = self.infer(tensor)
        inference_ms = (perf_counter() - started) * 1e3 / len(frames)
        check_run(arrays, len(frames), self.contract, self.name)
        logits, features, every_map = arrays[names.LOGITS], arrays[names.FEATURES], arrays.get(names.MAPS)
        return [
            Result(
                frame=frame,
                logits=logits[i].astype(np.float32, copy=False),
                features=features[i],
                rows=rows_of_image(self.weights, arrays, i),
                every_map=None if every_map is None else every_map[i],
                scoring=self.contract.head.scores,
                exact=self.exact,
                classes=self.classes,
                input_size=preprocessing.size,
                placement=placements[i],
                timings_ms={"preprocess": preprocess_ms[i], "inference": inference_ms},
            )
            for i, frame in enumerate(frames)
        ]


def _as_float32(array: Array | None) -> FloatArray | None:
    return None if array is None else array.astype(np.float32)


def _error_of_identity(arrays: Mapping[str, Array]) -> float:
    """How far the identity is from holding, in the form that this head has it."""
    logits, features = arrays[names.LOGITS], arrays[names.FEATURES]
    if names.TOPK_WEIGHTS not in arrays:
        weights, bias = arrays.get(names.CAM_WEIGHTS), arrays.get(names.CAM_BIAS)
        return identity_error(logits, features, weights, bias, arrays.get(names.CAM_SCALE))
    classes, rows = arrays[names.TOPK_CLASSES], arrays[names.TOPK_WEIGHTS]
    error = tangent_error(logits, features, classes, rows, arrays[names.TOPK_BIAS])
    if names.MAPS in arrays and np.isfinite(error):
        error = float(np.maximum(error, maps_error(arrays[names.MAPS], features, classes, rows)))  # NaN stays NaN
    return error
