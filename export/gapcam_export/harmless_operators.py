"""Which of PyTorch's operators a stranger's graph may call: those that compute of tensors and numbers alone.

Asked of torch's own schemas. An operator that takes a path reads and writes files (`aten::from_file` maps one into
memory, and a change in place is then written to it); one that takes neither a tensor nor is known to make one may
read or set what is outside the graph; and private ones do not always check what they are given.
"""

from __future__ import annotations

import re

import torch

# Of a schema's arguments, with Optional and List around them or not.
_TYPES = {"Tensor", "int", "float", "bool", "number", "complex", "Device", "Generator"}
# Arguments that are texts and choose among ways to compute.
_TEXTS = {
    "UPLO", "approximate", "driver", "equation", "indexing", "interpolation", "mode", "norm", "ord", "pad_mode",
    "padding", "padding_side", "reduce", "rounding_mode", "side",
}  # fmt: skip
_MAKING_TENSORS = {
    "arange", "bartlett_window", "blackman_window", "empty", "empty_permuted", "empty_strided", "eye",
    "fft_fftfreq", "fft_rfftfreq", "full", "hamming_window", "hann_window", "iota", "kaiser_window", "linspace",
    "logspace", "normal", "ones", "rand", "randint", "randn", "randperm", "range", "scalar_tensor",
    "sym_constrain_range", "sym_constrain_range_for_size", "tril_indices", "triu_indices", "zeros",
}  # fmt: skip
# Private ones that real networks' graphs have, by themselves or decomposed.
_PRIVATE = {
    "__and__", "__lshift__", "__or__", "__rshift__", "__xor__", "_adaptive_avg_pool2d",
    "_assert_tensor_metadata", "_convolution", "_fft_c2c", "_fft_c2r", "_fft_r2c", "_log_softmax",
    "_native_batch_norm_legit", "_native_batch_norm_legit_functional", "_native_batch_norm_legit_no_training",
    "_scaled_dot_product_attention_math", "_scaled_dot_product_efficient_attention",
    "_scaled_dot_product_flash_attention", "_scaled_dot_product_flash_attention_for_cpu", "_softmax",
    "_to_copy", "_unsafe_view", "_upsample_bicubic2d_aa", "_upsample_bilinear2d_aa", "_weight_norm",
}  # fmt: skip
_NAME = re.compile(r"torch\.ops\.(aten|prims|torchvision)\.(\w+)\.(\w+)")
# Arithmetic on sizes.
_ON_SIZES = re.compile(
    r"_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_)|torch\.sym_\w+"
)


def is_harmless(operator: str) -> bool:
    """Whether an operator, such as "torch.ops.aten.relu.default", computes of tensors and numbers alone.

    One that this torch does not have is not.
    """
    if _ON_SIZES.fullmatch(operator):
        return True
    found = _NAME.fullmatch(operator)
    if found is None:
        return False
    namespace, name, overload = found.groups()
    if name.startswith("_") and name not in _PRIVATE:
        return False
    try:
        schema = torch._C._get_schema(f"{namespace}::{name}", "" if overload == "default" else overload)
    except RuntimeError:
        return False
    kinds = {argument.name: re.sub(r"Optional|List|[\[\]]", "", str(argument.type)) for argument in schema.arguments}
    known = all(kind in _TYPES or (kind == "str" and argument in _TEXTS) for argument, kind in kinds.items())
    return known and ("Tensor" in kinds.values() or name in _MAKING_TENSORS)
