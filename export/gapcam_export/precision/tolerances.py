"""What the identity logit_c = mean(M_c) + b_c may be off by in each precision.

With the head in float32 `features` are exactly what the head reads, so the identity holds as in float32, however coarse
the features are: at most 7e-7 was measured in every precision.

Where the head is lowered, too, its pooled vector, its sums and the logits are rounded, and the identity, computed of
`features` in float64, sees that. With every tensor rounded it was at most 1.0e-3 in float16 and 7.6e-3 in bfloat16,
some steps of their 11 and 8 bits, and 2.6e-2 in int8: over EfficientNet-Lite0 with its ImageNet weights, and ConvNeXt,
DenseNet, MobileNetV3, SqueezeNet, Swin, vision transformers and small networks with random ones, on up to 20
photographs each. The tolerances are about three times that: an image that nobody looked at may be worse, and what is
wrong, rather than rounded, is off by more.
"""

from __future__ import annotations

from collections.abc import Mapping

from gapcam.contract import Precision
from gapcam.identity import GREATEST_TOLERANCE
from gapcam_export.verify import IDENTITY_TOLERANCE

_LOWERED_HEAD: Mapping[Precision, float] = {
    "fp32": IDENTITY_TOLERANCE,
    "fp16": 3e-3,
    "bf16": 2e-2,
    "int8": GREATEST_TOLERANCE,
}


def identity_tolerance(precision: Precision, head_precision: Precision) -> float:
    """What `gapcam.identity.identity_error` may be at most, relative, at most `GREATEST_TOLERANCE`.

    Args:
        precision: of the network before the head. It does not matter: whatever `features` are, the head reads the same.
        head_precision: of the pooling and what follows.
    """
    del precision
    return min(_LOWERED_HEAD[head_precision], GREATEST_TOLERANCE)
