"""Writes scikit-learn's linear classifiers, as its converter to ONNX gives them, with ONNX's own operators.

LinearClassifier of the domain ai.onnx.ml computes scores, their Softmax and the best class's label in one node, so that
the logits are nowhere in the graph. https://onnx.ai/onnx/operators/onnx_aionnxml_LinearClassifier.html
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from gapcam_export.graph import unused_name

_ENDS = {b"NONE": "Identity", b"SOFTMAX": "Softmax", b"LOGISTIC": "Sigmoid"}


def expand_linear_classifiers(graph: onnx.GraphProto) -> None:
    """Replace, in place, each LinearClassifier that has a row of coefficients for every class.

    Its scores become Gemm and their Softmax or Sigmoid, its label a lookup of the best of them.
    """
    for index, node in reversed(list(enumerate(graph.node))):
        if node.op_type != "LinearClassifier" or node.domain != "ai.onnx.ml":
            continue
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        names = given.get("classlabels_strings") or given.get("classlabels_ints") or []
        coefficients = np.asarray(given["coefficients"], np.float32)
        bias = np.asarray(given.get("intercepts") or [0.0] * len(names), np.float32)
        end = _ENDS.get(given.get("post_transform", b"NONE"))
        if end is None or len(names) < 2 or coefficients.size % len(names) or len(bias) != len(names):
            continue
        constants = {
            "linear_weights": coefficients.reshape(len(names), -1),
            "linear_bias": bias,
            "class_labels": np.asarray(names, object if isinstance(names[0], bytes) else np.int64),
        }
        named = {wish: unused_name(graph, wish) for wish in (*constants, "linear_scores", "best_class")}
        graph.initializer.extend(numpy_helper.from_array(value, named[wish]) for wish, value in constants.items())
        axis: dict[str, Any] = {"axis": 1} if end == "Softmax" else {}
        label, scores = (*node.output, "")[:2]
        plain = [
            helper.make_node(
                "Gemm",
                [node.input[0], named["linear_weights"], named["linear_bias"]],
                [named["linear_scores"]],
                transB=1,
            ),
            helper.make_node(end, [named["linear_scores"]], [scores], **axis),
            helper.make_node("ArgMax", [named["linear_scores"]], [named["best_class"]], axis=1, keepdims=0),
            helper.make_node("Gather", [named["class_labels"], named["best_class"]], [label]),
        ]
        graph.node.remove(node)
        for position, new in enumerate(part for part in plain if part.output[0]):
            graph.node.insert(index + position, new)
