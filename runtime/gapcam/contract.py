"""The model contract, version 1: what export writes and the runtime reads. Every name lives here, once.

A model file that keeps the contract is one self-contained ONNX file with these tensors; docs/model-contract.md
explains each:

| name                       | kind            | shape                                              |
| -------------------------- | --------------- | -------------------------------------------------- |
| `image`                    | input           | [N,3,H,W] float32, or [N,H,W,3] uint8 if embedded   |
| `logits`                   | output          | [N,K]                                              |
| `features`                 | output          | [N,C,h,w]                                          |
| `cam_weights`, `cam_bias`  | constant output | [K,C], [K]; of kinds "affine" and "layernorm"      |
| `cam_scale`                | output          | [N]; of kind "layernorm"                           |
| `topk_weights`, `topk_bias` | output         | [N,k,C], [N,k]; of kind "nonlinear"                |
| `maps`                     | optional output | [N,K,h,w]                                          |
| `topk_classes`, `topk_maps` | optional output | [N,k], [N,k,h,w]; the first always in "nonlinear"  |

The metadata entry `gapcam` holds a `Contract` as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Annotated, Literal

import msgspec

from gapcam.errors import ContractError

CONTRACT_VERSION = 1
METADATA_KEY = "gapcam"

IMAGE = "image"
LOGITS = "logits"
FEATURES = "features"
CAM_WEIGHTS = "cam_weights"
CAM_BIAS = "cam_bias"
CAM_SCALE = "cam_scale"
MAPS = "maps"
TOPK_CLASSES = "topk_classes"
TOPK_MAPS = "topk_maps"
TOPK_WEIGHTS = "topk_weights"
TOPK_BIAS = "topk_bias"

Version = Annotated[int, msgspec.Meta(ge=1)]
Side = Annotated[int, msgspec.Meta(ge=1)]
Positive = Annotated[float, msgspec.Meta(gt=0)]
Resize = Literal["squash", "crop", "letterbox"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
Color = Literal["rgb", "bgr"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]
Target = Literal["tensorrt", "cpu-x86", "cpu-arm"]
CalibrationMethod = Literal["minmax", "entropy", "percentile"]
Scores = Literal["softmax", "sigmoid"]


class HeadKind(str, Enum):
    """How logits follow from feature maps, and with it how a map is computed."""

    AFFINE = "affine"
    """GAP, then an affine map: M_c = sum_k W[c,k] f_k. Exact."""
    CLASS_MAPS = "class-maps"
    """GAP alone: the feature maps are the class maps, W is the identity and is not stored. Exact."""
    LAYERNORM = "layernorm"
    """GAP, LayerNorm, affine: M_c = scale * sum_k W[c,k] f_k, with one positive scale an image. Exact per image."""
    NONLINEAR = "nonlinear"
    """GAP, then affine layers with elementwise activations between: the head's gradient at that image gives the rows of
    its k best classes, M_c = sum_k (d logit_c / d pooled_k) f_k, which is Grad-CAM before its ReLU. Not exact."""
    NONE = "none"
    """No GAP: nothing to weight."""


class Preprocessing(msgspec.Struct, frozen=True, kw_only=True):
    """How a frame becomes the tensor `image`.

    Attributes:
        size: (H, W) in pixels of the tensor `image`.
        resize: "squash" stretches the whole frame; "crop" takes the centre with the tensor's aspect ratio;
            "letterbox" fits the whole frame and pads.
        crop_pct: with "crop", the cropped part of the largest possible centre crop, in (0, 1]: 224/256 for a network
            that is tested on the 224-pixel centre of a frame whose short side is 256.
        interpolation: of the resize; always antialiased where it shrinks, except "nearest".
        pad: value of the letterbox's bars, 0..255.
        color: channel order of `image`.
        mean: per channel of `image`, on the scale 0..1.
        std: per channel of `image`, on the scale 0..1: image = (pixel / 255 - mean) / std.
        embedded: True where the graph does the subtraction and division itself, so that `image` is [N,H,W,3] uint8.
    """

    size: tuple[Side, Side]
    resize: Resize = "squash"
    crop_pct: Annotated[float, msgspec.Meta(gt=0, le=1)] = 1.0
    interpolation: Interpolation = "bilinear"
    pad: Annotated[int, msgspec.Meta(ge=0, le=255)] = 114
    color: Color = "rgb"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    embedded: bool = False


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """What was found at the end of the network.

    Attributes:
        kind: which formula gives the maps.
        layout: how the pooled tensor was laid out in the source graph; `features` is always [N,C,h,w].
        tapped: name of the tensor in the source graph that became `features`.
        exact: whether a map is all that its logit is made of, up to the bias; False where a gradient stands for the
            head.
        scores: what makes scores of logits: "softmax", or "sigmoid" where classes do not exclude each other, and where
            there is only one.
    """

    kind: HeadKind
    layout: Literal["nchw", "nhwc", "tokens", "channels-tokens"]
    tapped: str
    exact: bool = True
    scores: Scores = "softmax"


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where the model came from.

    Attributes:
        spec: the SOURCE that was exported, such as "torchvision:resnet18"; a file by its name, without its folder.
        sha256: of the source's ONNX file, followed by the weights that this keeps in others, or of its weights as the
            exporter saw them.
        checkpoint: name of the file that its weights came from, "pretrained", or "" for the weights it had.
    """

    spec: str
    sha256: str
    checkpoint: str = ""


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What the export measured, over all images together.

    Attributes:
        images: how many real images were used.
        identity_error: max over images and classes of |logit_c - mean(M_c) - b_c|, over the greatest of these terms.
        identity_tolerance: what that may be at most.
        source_max_abs: max |difference| between an output that the source has (its logits, mostly) and the same output
            of the exported model.
        source_error: the same over the output's largest absolute value.
        source_tolerance: what that may be at most.
        source_cosine: least cosine similarity of the two vectors over the images.
        source_top1: fraction of images on which both name the same class.
        reference: what ran the source: "torch" or "onnxruntime".
        gradient_error: of kind "nonlinear": max over images and the k best classes of the difference between the change
            of a logit along a direction of the pooled vector, by central differences, and what its row says, over the
            greatest such change. None for other kinds.
        gradient_tolerance: what that may be at most.
        identity_images: on how many images the identity was measured, where these are others: a model of lower
            precision is held to it anew, while the rest is that of the float32 model.
    """

    images: int
    identity_error: float
    identity_tolerance: float
    source_max_abs: float
    source_error: float
    source_tolerance: float
    source_cosine: float
    source_top1: float
    reference: str
    gradient_error: float | None = None
    gradient_tolerance: float | None = None
    identity_images: int | None = None


class Quantization(msgspec.Struct, frozen=True, kw_only=True):
    """How an int8 model was made from a float32 one.

    Attributes:
        target: what it is fast on.
        method: how the range of each activation was chosen from what it was on the calibration images.
        calibration_images: how many of those there were.
        kept_layers: names of the layers (nodes of the graph) that could have been quantised and were left in float32.
        features_scale: the step of `features`, which are integers times this; None where they were left in float32.
        features_zero_point: the integer that stands for 0 in `features`; None likewise.
    """

    target: Target
    method: CalibrationMethod
    calibration_images: int
    kept_layers: tuple[str, ...] = ()
    features_scale: float | None = None
    features_zero_point: int | None = None


class Fidelity(msgspec.Struct, frozen=True, kw_only=True):
    """How alike two models answer on the same images: means over them, unless a name says otherwise.

    Everything about maps is of the class that the first model, the reference, finds best.

    Attributes:
        images: how many there were.
        top1_agreement: fraction of images on which both name the same class first.
        top5_agreement: part of the reference's five best classes that are among the other's five best.
        logit_error: max over the classes of |difference of logits|, over the reference's largest |logit|.
        logit_error_max: the greatest of these over the images.
        map_pearson: linear correlation of the two maps, in [-1, 1].
        map_pearson_min: the least of these over the images.
        map_spearman: rank correlation of the two maps, in [-1, 1].
        box_iou: intersection over union of the two maps' boxes (Zhou et al. 2016: largest component above
            `threshold` of the maximum).
        box_iou_min: the least of these over the images.
        peak_shift_px: distance between the two maps' maxima, in pixels of the reference's input.
        threshold: of the boxes.
        emulated: whether the second model was emulated, in float32 with each tensor rounded as it rounds it.
    """

    images: int
    top1_agreement: float
    top5_agreement: float
    logit_error: float
    logit_error_max: float
    map_pearson: float
    map_pearson_min: float
    map_spearman: float
    box_iou: float
    box_iou_min: float
    peak_shift_px: float
    threshold: float
    emulated: bool = False


class Contract(msgspec.Struct, frozen=True, kw_only=True):
    """The metadata entry `gapcam`.

    Attributes:
        contract: version of the contract.
        producer: what wrote the file, such as "gapcam 0.1.0".
        head: how maps follow from features.
        preprocessing: how a frame becomes `image`.
        labels: K names in the order of `logits`, or an empty tuple if there are none.
        source: where the model came from.
        precision: of the weights and activations.
        verification: what the export measured.
        head_precision: what the head is computed in, from the pooling to the logits.
        quantization: how an int8 model was made; None for others.
        fidelity: how alike a model of lower precision and the float32 model that it was made from answer; None for
            float32.
    """

    contract: Version
    producer: str
    head: Head
    preprocessing: Preprocessing
    labels: tuple[str, ...]
    source: Source
    precision: Precision
    verification: Verification
    head_precision: Precision = "fp32"
    quantization: Quantization | None = None
    fidelity: Fidelity | None = None


class _OnlyVersion(msgspec.Struct):
    contract: Version


def contract_to_json(contract: Contract) -> str:
    """The text that is kept under the metadata key `gapcam`."""
    return msgspec.json.encode(contract).decode()


def contract_from_metadata(metadata: Mapping[str, str], model_name: str) -> Contract:
    """The contract among a model's metadata entries.

    Args:
        metadata: a model's metadata_props.
        model_name: how messages call the model.

    Raises:
        ContractError: there is none, it is damaged, or it is newer than this gapcam.
    """
    text = metadata.get(METADATA_KEY)
    if text is None:
        raise ContractError(
            f"{model_name} is an ONNX model without gapcam's contract (no metadata entry {METADATA_KEY!r}). "
            f"Make one that has it with: gapcam export {model_name} -o exported.onnx"
        )
    try:
        version = msgspec.json.decode(text, type=_OnlyVersion).contract
        if version > CONTRACT_VERSION:
            raise ContractError(
                f"{model_name} keeps version {version} of the contract; this gapcam knows version {CONTRACT_VERSION} "
                "and older. Update it (pip install --upgrade gapcam), or export the model again with this version."
            )
        return msgspec.json.decode(text, type=Contract)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:  # a ValidationError is a DecodeError
        said = " ".join(str(error).split())
        raise ContractError(
            f"{model_name} has a damaged contract: {said}. Export the model again from its source."
        ) from error
