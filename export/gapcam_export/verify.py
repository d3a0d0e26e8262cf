"""Proves an exported model on real images: against its source, and by the identity that every map rests on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

import gapcam
from gapcam.contract import (
    CAM_BIAS,
    CAM_SCALE,
    CAM_WEIGHTS,
    FEATURES,
    IMAGE,
    LOGITS,
    MAPS,
    TOPK_BIAS,
    TOPK_CLASSES,
    TOPK_MAPS,
    TOPK_WEIGHTS,
    Preprocessing,
    Verification,
)
from gapcam.errors import VerificationError
from gapcam.identity import identity_error, tangent_error
from gapcam.scores import scores_from_logits
from gapcam_export.gradient_check import GRADIENT_TOLERANCE, GradientCheck
from gapcam_export.head import Scoring, find_score_operator
from gapcam_export.nonlinear import Chain
from gapcam_export.section import Array, run_session

IDENTITY_TOLERANCE = 1e-4
# Torch and ONNX Runtime sum in other orders; what is wrong rather than rounded is off by orders of magnitude more.
TORCH_TOLERANCE = 1e-3
# The same runtime on the same nodes; new outputs may change what it fuses.
ONNX_TOLERANCE = 1e-6
# Larger products may be summed in another order; another image's values are off by all.
_BATCH_TOLERANCE = 1e-2
# A runtime's own approximation of exp, in float32.
_SCORES_TOLERANCE = 1e-4
_FINITE = "Check that the weights are finite and the images are like those that the network was trained on."
_WHY = {
    "torch": "Does the network draw random numbers, or keep state from one image to the next?",
    "onnxruntime": "Does the graph draw random numbers, or compute in less than float32?",
}


class Reference(Protocol):
    """The source, as something that answers."""

    name: str
    tolerance: float

    def __call__(self, image: Array) -> dict[str, Array]:
        """The outputs that the source has of its own, by the names they keep, for one image without batch axis."""


class TorchReference:
    """A PyTorch network.

    Args:
        forward: takes [N,3,H,W] float32 and gives [N,K].
        output: what that is called in the exported model: the logits, or their Softmax.
    """

    name, tolerance = "torch", TORCH_TOLERANCE

    def __init__(self, forward: Callable[[NDArray[np.float32]], NDArray[np.float32]], output: str) -> None:
        self._forward, self._output = forward, output

    def __call__(self, image: Array) -> dict[str, Array]:
        """See `Reference`."""
        return {self._output: self._forward(image[None].astype(np.float32, copy=False))[0]}


def verify(
    model: onnx.ModelProto,
    session: ort.InferenceSession,
    exported: Preprocessing,
    original: Preprocessing,
    frames: Sequence[NDArray[np.uint8]],
    reference: Reference,
    nonlinear: Chain | None = None,
) -> Verification:
    """Measure an exported model on real frames.

    Args:
        model: with the contract's outputs.
        session: that runs it.
        exported: preprocessing of the exported model.
        original: preprocessing of the source; it differs where the export has embedded it.
        frames: each H x W x 3 uint8 BGR, any size.
        reference: the source.
        nonlinear: the head, where it is of that kind.

    Returns:
        What was measured; see `check` for whether it is good enough.

    Raises:
        VerificationError: a Softmax or Sigmoid that the source ends in gives other scores than the logits' own, or maps
            in the graph are not the sums that they should be.
    """
    identity = max_abs = relative = 0.0
    cosines, agreements = [], []
    gradients = None if nonlinear is None else GradientCheck(nonlinear)
    for frame in frames:
        got = _run(session, gapcam.preprocess(frame, exported))
        identity = _worse(identity, _identity_error(got))
        _check_maps(got, IDENTITY_TOLERANCE)
        if gradients is not None:
            gradients.measure(got[FEATURES].mean(axis=(1, 2)), got[TOPK_CLASSES], got[TOPK_WEIGHTS])
        for name, expected in reference(gapcam.preprocess(frame, original)).items():
            answer, wanted = got[name].reshape(-1), expected.reshape(-1)
            _, scoring = find_score_operator(model.graph, name)
            if name != LOGITS and scoring is not None:
                _check_scores(got[LOGITS], answer, name, scoring)
            difference = float(np.abs(answer - wanted).max())
            max_abs = _worse(max_abs, difference)
            relative = _worse(relative, difference / _scale_of_source(wanted, got, scoring))
            cosines.append(_cosine(answer, wanted))
            agreements.append(int(answer.argmax()) == int(wanted.argmax()))
    return Verification(
        images=len(frames),
        identity_error=identity,
        identity_tolerance=IDENTITY_TOLERANCE,
        source_max_abs=max_abs,
        source_error=relative,
        source_tolerance=reference.tolerance,
        source_cosine=min(cosines),
        source_top1=sum(agreements) / len(agreements),
        reference=reference.name,
        gradient_error=None if gradients is None else gradients.error,
        gradient_tolerance=None if gradients is None else GRADIENT_TOLERANCE,
    )


def measure_identity(
    session: ort.InferenceSession, exported: Preprocessing, frames: Sequence[NDArray[np.uint8]], tolerance: float
) -> float:
    """The identity's error on frames, as `Verification.identity_error` defines it.

    Args:
        session: of a model with the contract's outputs.
        exported: its preprocessing.
        frames: each H x W x 3 uint8 BGR, any size.
        tolerance: for maps that the graph gives, against rows times features.

    Raises:
        VerificationError: those maps are not the sums that they should be.
    """
    error = 0.0
    for frame in frames:
        got = _run(session, gapcam.preprocess(frame, exported))
        error = _worse(error, _identity_error(got))
        _check_maps(got, tolerance)
    return error


def _scale_of_source(wanted: Array, got: dict[str, Array], scoring: Scoring | None) -> float:
    """What a difference from the source is part of: its greatest value, or for one class what the logit is the sum of.

    Near its decision boundary that logit is small, and what it is the sum of is not.
    """
    if len(wanted) > 1:
        return _scale(wanted)
    if scoring is not None:
        return 1.0
    bias = got.get(CAM_BIAS, got.get(TOPK_BIAS, np.zeros(1)))
    return _scale(np.concatenate([wanted, bias, wanted - bias]))


def _check_scores(logits: Array, given: Array, name: str, scoring: Scoring) -> None:
    """Compare what an output gives [K] with the scores that follow from the logits [K] as the runtime computes them."""
    values = logits.astype(np.float64)
    if scoring == "log-softmax":
        shifted = values - values.max()
        expected: Array = shifted - np.log(np.exp(shifted).sum())
    else:
        expected = scores_from_logits(values, scoring)
    error = _relative_error(given, expected) if given.shape == expected.shape else np.nan
    if not error <= _SCORES_TOLERANCE:
        raise VerificationError(
            f"the output {name!r} is not the {scoring} of the logits that were found: they differ by {error:.1e} of "
            f"the greatest; at most {_SCORES_TOLERANCE:.0e} was expected. Nothing was written. Export the network "
            "without what makes scores of its logits."
        )


def _check_maps(got: dict[str, Array], tolerance: float) -> None:
    """Compare the maps that the graph gives of an image, where it gives some, with rows times features."""
    features, rows, best = got[FEATURES].reshape(len(got[FEATURES]), -1), got.get(TOPK_WEIGHTS), got.get(TOPK_CLASSES)
    for name in (MAPS, TOPK_MAPS):
        if name not in got:
            continue
        given, classes = got[name], best if name == TOPK_MAPS else slice(None)
        if rows is not None:  # of the best classes alone
            given, expected = given[best] if name == MAPS else given, rows @ features
        elif CAM_WEIGHTS in got:
            expected = got.get(CAM_SCALE, np.float32(1)) * (got[CAM_WEIGHTS][classes] @ features)
        else:
            expected = features[classes]
        error = _relative_error(given.reshape(expected.shape), expected)
        if not error <= tolerance:
            raise VerificationError(
                f"{name!r} are not the sums of weights and features: they differ by {error:.1e} of the greatest value; "
                f"at most {tolerance:.0e} was expected. Nothing was written. {_FINITE}"
            )


def _two(frames: Sequence[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    """Two different frames."""
    return [frames[0], frames[1] if len(frames) > 1 else np.ascontiguousarray(frames[0][::-1, ::-1])]


def check_batch(session: ort.InferenceSession, exported: Preprocessing, frames: Sequence[NDArray[np.uint8]]) -> None:
    """Compare what two images give as one batch with what each gives alone; nothing where the batch is fixed.

    Args:
        session: of a model with the contract's outputs.
        exported: its preprocessing.
        frames: each H x W x 3 uint8 BGR, any size; two are used.

    Raises:
        VerificationError: images of one batch are mixed.
    """
    if isinstance(session.get_inputs()[0].shape[0], int):
        return
    images = [gapcam.preprocess(frame, exported) for frame in _two(frames)]
    together = run_session(session, _output_names(session), {IMAGE: np.stack(images)})
    for index, image in enumerate(images):
        alone = _run(session, image)
        # Two classes that are as good as equal may change places.
        is_same = TOPK_CLASSES not in alone or np.array_equal(together[TOPK_CLASSES][index], alone[TOPK_CLASSES])
        ranked = (TOPK_WEIGHTS, TOPK_BIAS, TOPK_MAPS) if is_same else ()
        for name in (LOGITS, FEATURES, CAM_SCALE, MAPS, *ranked):
            if name not in alone:
                continue
            error = _relative_error(together[name][index], alone[name])
            if not error <= _BATCH_TOLERANCE:
                raise VerificationError(
                    f"{name!r} of an image differ by {error:.1e} of the greatest value where another is in the batch; "
                    f"at most {_BATCH_TOLERANCE:.0e} was expected. Nothing was written. Does the network mix the "
                    "images of a batch? Export it with --static-batch."
                )


def _identity_error(got: dict[str, Array]) -> float:
    """How well the maps of one image explain its logits."""
    logits, features = got[LOGITS][None], got[FEATURES][None]
    if TOPK_WEIGHTS in got:
        return tangent_error(logits, features, got[TOPK_CLASSES][None], got[TOPK_WEIGHTS][None], got[TOPK_BIAS][None])
    scale = got.get(CAM_SCALE)
    return identity_error(
        logits, features, got.get(CAM_WEIGHTS), got.get(CAM_BIAS), None if scale is None else scale[None]
    )


def _output_names(session: ort.InferenceSession) -> list[str]:
    return [output.name for output in session.get_outputs()]


def _run(session: ort.InferenceSession, image: Array) -> dict[str, Array]:
    """Outputs for one image, without batch axis where they have one."""
    values = run_session(session, _output_names(session), {IMAGE: image[None]})
    return {name: value if name in (CAM_WEIGHTS, CAM_BIAS) else value[0] for name, value in values.items()}


def _worse(error: float, other: float) -> float:
    """The larger one; NaN is larger than all."""
    return float(np.maximum(error, other))


def _relative_error(given: Array, expected: Array) -> float:
    """The greatest difference over the greatest expected value."""
    return float(np.abs(given - expected).max()) / _scale(expected)


def _scale(values: Array) -> float:
    return max(float(np.abs(values).max()), float(np.finfo(np.float32).tiny))


def _cosine(a: Array, b: Array) -> float:
    x, y = a.astype(np.float64), b.astype(np.float64)
    return float(x @ y / max(float(np.linalg.norm(x) * np.linalg.norm(y)), float(np.finfo(np.float64).tiny)))


def check(measured: Verification) -> None:
    """Accept what was measured, or say what is wrong.

    Raises:
        VerificationError: a tolerance is exceeded. NaN exceeds every tolerance.
    """
    if not measured.identity_error <= measured.identity_tolerance:
        raise VerificationError(
            f"the maps do not explain the logits: |logit - mean(map) - bias| is {measured.identity_error:.1e} of the "
            f"greatest of them; at most {measured.identity_tolerance:.0e} was expected. Nothing was written. {_FINITE}"
        )
    if measured.gradient_error is not None and not measured.gradient_error <= (measured.gradient_tolerance or 0):
        raise VerificationError(
            f"the head's gradient is not that of its logits: they differ by {measured.gradient_error:.1e} of the "
            f"greatest change; at most {measured.gradient_tolerance:.0e} was expected. Nothing was written. {_FINITE}"
        )
    if not measured.source_error <= measured.source_tolerance:
        raise VerificationError(
            f"the exported model's logits differ from those of the source ({measured.reference}) by "
            f"{measured.source_error:.1e} of the largest logit; at most {measured.source_tolerance:.0e} was expected. "
            f"Nothing was written. {_WHY[measured.reference]}"
        )
