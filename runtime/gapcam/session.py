"""A loaded model: frames in, results out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeGuard, get_args

from gapcam.backends.device_protocol import DeviceBackend
from gapcam.backends.protocol import Array, Backend
from gapcam.cam import Normalization
from gapcam.classes import ClassRef
from gapcam.devices import choose_backend
from gapcam.errors import BackendError, UsageError
from gapcam.frame import FrameFormat, check_format
from gapcam.frame_path import FramePath
from gapcam.host_path import HostPath
from gapcam.loaded_model import LoadedModel, model_from_backend
from gapcam.result import Result
from gapcam.whole_number import whole_number

if TYPE_CHECKING:
    from gapcam.cuda.device_path import DevicePath
    from gapcam.cuda.driver import Module
    from gapcam.cuda.frame_graph import FrameGraph
    from gapcam.cuda.frame_work import Output

Post: TypeAlias = Literal["auto", "numpy", "cuda"]

MAX_THREADS = 1024
"""More than a device has cores: a slip of the pen."""


def load(
    path: str | os.PathLike[str],
    *,
    device: str = "auto",
    threads: int | None = None,
    provider_options: Mapping[str, str] | None = None,
    session_options: Mapping[str, object] | None = None,
    allow_cpu_fallback: bool = False,
    post: Post = "auto",
    verify: bool = True,
) -> Session:
    """Load a model that keeps gapcam's contract.

    Args:
        path: of a .onnx file made by `gapcam export`, or of an engine file made by `gapcam build`.
        device: "cpu", "cuda", "tensorrt", "tensorrt-rtx", or "auto" for the fastest of them that works here; a GPU that
            is not the first has its number behind it: "cuda:1". docs/gpu.md says what each needs.
        threads: that one inference may use on the CPU, 1 to 1024; by default every physical core.
        provider_options: of ONNX Runtime's execution provider, handed through. The CPU provider ignores all of them.
        session_options: of ONNX Runtime: configuration entries ("session.intra_op.allow_spinning": "0"), of which it
            ignores those that it does not know, and attributes of its SessionOptions, also as text
            ("graph_optimization_level": "ORT_DISABLE_ALL", "enable_profiling": "true").
        allow_cpu_fallback: whether layers that ONNX Runtime's provider for the GPU does not know may run on the CPU.
            Else they are an error that names them.
        post: what computes maps and pictures, as in `Session`.
        verify: check on a real run that logit_c = mean(M_c) + b_c, of a nonlinear head for the classes that have rows.
            Without it, maps of a broken model are wrong without a word.

    Raises:
        ModelError: the file is missing, no ONNX model, damaged, or its tensors are not those that its contract names.
        ContractError: it has no contract, a damaged one, or one of a newer version.
        VerificationError: the identity does not hold on this device.
        UsageError: `threads` is out of its range.
        BackendError: the device is not available, layers would run on the CPU, an engine does not fit the device, or an
            option is not understood.
        MissingExtraError: the package that runs the model is not installed.

    Example:
        >>> with gapcam.load("model.onnx", threads=1) as session:  # doctest: +SKIP
        ...     print(session(frame).top[0].label)
    """
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise UsageError(
            f"threads is {threads}; give a number from 1 to {MAX_THREADS}, or none for every physical core"
        )
    choice = choose_backend(
        Path(path),
        device=device,
        threads=threads,
        provider_options=provider_options,
        session_options=session_options,
        allow_cpu_fallback=allow_cpu_fallback,
    )
    try:
        session = Session(choice.backend, name=os.fspath(path), verify=verify, post=post)
    except BaseException:
        choice.backend.close()
        raise
    session.passed_over = choice.passed_over
    return session


class Session:
    """A model on a backend, checked against its contract. `gapcam.load` makes one.

    Use it as a context manager, or call `close`. With ONNX Runtime, several threads may call one session, and one may
    close it: inferences that have begun are finished, later ones raise UsageError.

    Args:
        backend: a loaded model; the session closes it.
        name: how messages call the model.
        verify: as in `load`.
        post: what computes maps and pictures: "cuda", gapcam's kernels on the backend's device, from where only what
            is asked for comes back; "numpy"; or "auto", the first where the backend is on a CUDA device.
        kernels: gapcam's, loaded already; by default they are compiled for the device, which takes some seconds the
            first time ever.

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
        passed_over: where `load` chose the device on a machine with a GPU, why it did not take a faster way.
        warnings: what TensorRT warned of when it loaded an engine; none with other backends.

    Raises:
        ModelError, ContractError, VerificationError: as in `load`.
        UsageError, BackendError: `post` is none of these, or "cuda" for a backend that is not on a CUDA device.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        name: str = "the model",
        verify: bool = True,
        post: Post = "auto",
        kernels: Module | None = None,
    ) -> None:
        self._model = model = model_from_backend(backend, name)
        self.name = name
        self.engine = backend.engine
        self.passed_over: tuple[str, ...] = ()
        self.warnings: tuple[str, ...] = tuple(getattr(backend, "warnings", ()))  # of those that have some to give
        self.inputs, self.outputs = dict(backend.inputs), dict(backend.outputs)
        self.contract = model.contract
        self.exact = model.contract.head.exact
        self.classes, self.labels = model.classes, model.classes.labels
        self.map_size, self.weights, self.bias = model.map_size, model.weights, model.bias
        self.identity_error, self.identity_tolerance = model.identity_error, model.identity_tolerance
        if verify:
            model.check_identity(backend.engine)
        self._on_device = _device_path(model, backend, kernels) if _computes_on_device(backend, post) else None
        self._why_on_host = (
            f"post={post!r} leaves maps and pictures to NumPy. Load the model with post='auto'"
            if isinstance(backend, DeviceBackend)
            else f"{self.engine} does not. Load the model with device='cuda', 'tensorrt' or 'tensorrt-rtx'"
        )
        self._path: FramePath[Any] = self._on_device or HostPath(model, backend)

    def __call__(self, frame: object, *, format: FrameFormat = "bgr") -> Result:
        """Classify one frame.

        Args:
            frame: H x W x 3 uint8 BGR. The result keeps a reference to it, not a copy: where a camera reuses its
                buffer, draw the overlay before the next frame or hand over a copy. On a CUDA device it may lie there,
                too: anything with `__cuda_array_interface__`, a cv2.cuda.GpuMat or a `gapcam.DeviceFrame`; and the
                result keeps a copy on the device.
            format: "bgr"; on a CUDA device also "bgra", H x W x 4, or "nv12", H * 3/2 x W. A DeviceFrame knows its own.

        Returns:
            On a CUDA device a `gapcam.DeviceResult`.

        Raises:
            FrameError: `frame` has another type, dtype or layout.
            VerificationError: the logits are not finite.
            ModelError: the model gave another number of results than of frames.
            BackendError: the engine failed.
            UsageError: the session is closed.
        """
        return self._path.run([self._path.checked(frame, format)])[0]

    def batch(self, frames: Sequence[object], *, format: FrameFormat = "bgr") -> list[Result]:
        """Classify several frames, of whatever sizes, in one inference. They are as in a call.

        A model that was exported for a batch of 1 runs them one after another.

        Raises:
            FrameError: one of `frames` has another type, dtype or layout; the message says which.
            VerificationError, ModelError, BackendError, UsageError: as for one frame.
        """
        path = self._path
        checked = [path.checked(frame, format, f"frame {index} of the batch: ") for index, frame in enumerate(frames)]
        if self._model.batched:
            return path.run(checked) if checked else []
        return [path.run([frame])[0] for frame in checked]

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
        return self._path.infer(image)

    def frame_graph(
        self,
        height: int,
        width: int,
        *,
        format: FrameFormat = "bgr",
        topk: int = 1,
        targets: Sequence[ClassRef] | None = None,
        clamp_negative: bool = False,
        overlay: bool = True,
        colormap: str = "jet",
        alpha: float = 0.5,
        alpha_by_heat: bool = False,
        normalization: Normalization = "minmax",
        limits: tuple[float, float] | None = None,
        output: Output = "host",
    ) -> FrameGraph:
        """One camera's frames, always treated alike, on a CUDA device: captured once and replayed for each frame.

        Args:
            height: of the frames in pixels.
            width: likewise.
            format: as in a call.
            topk: how many of the best classes get maps.
            targets: a list of the classes that get maps instead, in this order.
            clamp_negative: without the negative weights, see `gapcam.cam.class_maps`.
            overlay: whether to draw the first of the maps over the frame.
            colormap: as in `Result.overlay`.
            alpha: as in `Result.overlay`.
            alpha_by_heat: as in `Result.overlay`.
            normalization: as in `Result.heatmap`.
            limits: as in `Result.heatmap`.
            output: "host", or "device" where the overlay is to stay there.

        Raises:
            UsageError: an argument is out of its range, or the session is closed.
            ClassNotFoundError: there is no such class among `targets`.
            MapNotComputedError: a nonlinear head's graph computes the rows of fewer classes than `topk`.
            BackendError: the session does not compute on a CUDA device, or there is not enough memory there.
        """
        if self._on_device is None:
            raise BackendError(f"a frame graph runs on a CUDA device, and {self._why_on_host}")
        from gapcam.cuda.device_frame import FrameLayout
        from gapcam.look import Look

        check_format(format)
        look = Look(colormap, alpha, alpha_by_heat, normalization, limits)
        return self._on_device.frame_graph(
            FrameLayout(format, whole_number(height, "height"), whole_number(width, "width")),
            topk=whole_number(topk, "topk"),
            targets=targets,
            look=look if overlay else None,
            clamp_negative=clamp_negative,
            output=output,
        )

    def index(self, target: ClassRef) -> int:
        """The index of a class given by its index or label.

        Raises:
            ClassNotFoundError: there is no such class, or several share the label.
        """
        return self.classes.resolve(target)

    def close(self) -> None:
        """Give the model's memory back. Results stay usable. Closing twice does nothing."""
        self._path.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _computes_on_device(backend: Backend, post: Post) -> TypeGuard[DeviceBackend]:
    if post not in get_args(Post):
        raise UsageError(f"post is {post!r}; give one of {', '.join(get_args(Post))}")
    on_device = isinstance(backend, DeviceBackend)
    if post == "cuda" and not on_device:
        raise BackendError(f"post is 'cuda', and {backend.engine} is not on a CUDA device; give 'auto' or 'numpy'")
    return on_device and post != "numpy"


def _device_path(model: LoadedModel, backend: DeviceBackend, kernels: Module | None) -> DevicePath:
    # Here, because the CPU needs none of it.
    from gapcam.cuda.device_path import DevicePath
    from gapcam.cuda.kernel_cache import load_kernels

    with backend.driver.active():
        return DevicePath(model, backend, kernels or load_kernels(backend.driver))
