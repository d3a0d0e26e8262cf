"""What range each activation of a network has on calibration images, by ONNX Runtime's calibrators.

- minmax: all that it is.
- entropy: clipped where a histogram of 128 steps differs least from the finer one, by Kullback and Leibler's divergence
  (Migacz, "8-bit inference with TensorRT", 2017). The step at zero, which ReLU fills, counts no more than its
  neighbours, as in NVIDIA's calibrators: else most of what is not zero is clipped.
- percentile: all but the outermost 0.001 %.

The images go through the network one at a time, so memory does not grow with their number: for histograms twice, since
the first time says how wide they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization.calibrate import (
    EntropyCalibrater,
    HistogramCollector,
    MinMaxCalibrater,
    PercentileCalibrater,
)

from gapcam.backends.protocol import Array
from gapcam.contract import FEATURES, LOGITS, CalibrationMethod, Preprocessing
from gapcam.errors import ModelError
from gapcam_export.graph import graph_inputs
from gapcam_export.precision.calibration import network_inputs
from gapcam_export.precision.quiet import quiet
from gapcam_export.section import observe, onnx_session, run_session

Ranges = Mapping[str, tuple[np.float32, np.float32]]
"""Least and greatest value by tensor."""

_BINS: Mapping[CalibrationMethod, int] = {"entropy": 512, "percentile": 8192}
_QUANTIZED_BINS = 128
_PERCENTILE = 99.999
# Tensors whose values are looked at together when one is searched that is not finite.
_OBSERVED = 16


def activation_ranges(
    model: onnx.ModelProto,
    images: Sequence[Path],
    preprocessing: Preprocessing,
    method: CalibrationMethod,
    on_image: Callable[[int], None] | None = None,
) -> Ranges:
    """The range of every float32 tensor that a network computes.

    Args:
        model: with the contract's outputs, and the types of its tensors inferred.
        images: to calibrate on.
        preprocessing: of the network.
        method: see above.
        on_image: is called with how many of the images are done; where they are looked at twice, each counts half.

    Raises:
        ModelError: a value is NaN or infinite; the message names the layer.
        DataError: an image cannot be read.
    """
    report = on_image or _ignore
    passes = 1 if method == "minmax" else 2
    with TemporaryDirectory(prefix="gapcam-") as scratch:
        path = Path(scratch) / "model.onnx"
        onnx.save(model, path)
        with quiet():
            calibrator = MinMaxCalibrater(path, augmented_model_path=f"{scratch}/minmax.onnx")
            calibrator.augment_graph()
        inputs = network_inputs(images, preprocessing)
        ranges = _extremes(model, calibrator.model, inputs, images, lambda done: report(done // passes))
        if method == "minmax":
            return ranges
        with quiet():
            augmented, bins = f"{scratch}/{method}.onnx", _BINS[method]
            if method == "entropy":
                histograms = EntropyCalibrater(
                    path, augmented_model_path=augmented, num_bins=bins, num_quantized_bins=_QUANTIZED_BINS
                )
            else:
                histograms = PercentileCalibrater(
                    path, augmented_model_path=augmented, num_bins=bins, percentile=_PERCENTILE
                )
            histograms.augment_graph()
        histograms.infer_session = onnx_session(histograms.model)
        inputs = network_inputs(images, preprocessing)
        return _clipped(histograms, ranges, inputs, lambda done: report((len(images) + done) // passes))


def _extremes(
    model: onnx.ModelProto,
    augmented: onnx.ModelProto,
    inputs: Iterable[Mapping[str, Array]],
    images: Sequence[Path],
    report: Callable[[int], None],
) -> Ranges:
    """Least and greatest values, from a graph whose outputs are `_ReduceMin` and `_ReduceMax` of each tensor, too."""
    own = {value.name for value in model.graph.output}
    added = [value.name for value in augmented.graph.output if value.name not in own]
    tensors = list(dict.fromkeys(name.rpartition("_")[0] for name in added))
    session = onnx_session(augmented)
    least: dict[str, Any] = dict.fromkeys(tensors, np.float32(np.inf))
    greatest: dict[str, Any] = dict.fromkeys(tensors, np.float32(-np.inf))
    for done, (feed, path) in enumerate(zip(inputs, images, strict=True), start=1):
        got = run_session(session, [LOGITS, FEATURES, *added], feed)
        # ONNX Runtime's ReduceMin may pass a NaN over; the logits do not.
        if not all(np.isfinite(value).all() for value in got.values()):
            raise ModelError(
                f"{_first_not_finite(model, feed)} on {path.name}, so it cannot be calibrated. Check that the weights "
                "are finite, and that the image is like those that the network was trained on."
            )
        for name in tensors:
            least[name] = np.minimum(least[name], got[f"{name}_ReduceMin"].min(initial=np.inf))
            greatest[name] = np.maximum(greatest[name], got[f"{name}_ReduceMax"].max(initial=-np.inf))
        report(done)
    return {name: (np.float32(least[name]), np.float32(greatest[name])) for name in tensors}


def _clipped(
    calibrator: Any, ranges: Ranges, inputs: Iterable[Mapping[str, Array]], report: Callable[[int], None]
) -> Ranges:
    """Ranges that leave out what is rare, from histograms.

    The first values that a histogram gets are the tensor's least and greatest: ONNX Runtime's own histograms grow with
    the values that come, without bound where the first image is dark.
    """
    calibrator.collector = HistogramCollector(
        method=calibrator.method,
        symmetric=False,
        num_bins=calibrator.num_bins,
        num_quantized_bins=calibrator.num_quantized_bins,
        percentile=calibrator.percentile,
        scenario=calibrator.scenario,
    )
    with quiet():
        calibrator.collector.collect({name: np.asarray(both, np.float32) for name, both in ranges.items()})
        for done, feed in enumerate(inputs, start=1):
            calibrator.collect_data(_OneImage(feed))
            report(done)
        if calibrator.method == "entropy":
            _level_zero(calibrator.collector.histogram_dict)
        found = calibrator.compute_data()
    return {name: (np.float32(data.range_value[0]), np.float32(data.range_value[1])) for name, data in found.items()}


def _level_zero(histograms: dict[str, Any]) -> None:
    """Let the step at zero of each histogram count no more than the larger of its neighbours, in place."""
    for name, (counts, *rest) in histograms.items():
        middle, levelled = len(counts) // 2, counts.copy()
        levelled[middle] = min(counts[middle], max(counts[middle - 1], counts[middle + 1]))
        histograms[name] = (levelled, *rest)


class _OneImage:
    """One image, as ONNX Runtime's CalibrationDataReader."""

    def __init__(self, feed: Mapping[str, Array]) -> None:
        self._feed: Mapping[str, Array] | None = feed

    def get_next(self) -> Mapping[str, Array] | None:
        """The image, then None."""
        feed, self._feed = self._feed, None
        return feed


def _first_not_finite(model: onnx.ModelProto, feed: Mapping[str, Array]) -> str:
    """The first node that gives NaN or infinity, in words."""
    (fed,) = graph_inputs(model.graph)
    makers = {name: node for node in model.graph.node for name in node.output if name}
    names = list(makers)
    for begin in range(0, len(names), _OBSERVED):
        part = names[begin : begin + _OBSERVED]
        for name, value in observe(model, part, feed[fed.name]).items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                node = makers[name]
                return f"the layer {node.name!r} ({node.op_type}) gives values that are not finite"
    return "the network gives values that are not finite"


def _ignore(done: int) -> None:
    del done
