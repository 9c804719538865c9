"""What the name of a kernel says of its arithmetic. Pure.

``sm90_xmma_gemm_f16f16_f16f16_f16_tn_n_…``: the types that are read and written, those that are multiplied and summed,
and that of the scaling afterwards. On an H200 TensorRT 8.6.0's kernels of this name had the error of float16 sums.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["count_half_sums", "sum_type"]

_TYPE = r"(?:tf32|bf16|[fiu]\d+|e\dm\d)"
_NAME = re.compile(rf"_xmma_\w*?_{_TYPE}{{2}}_{_TYPE}??({_TYPE})_{_TYPE}(?:_|$)")


def sum_type(kernel: str) -> str | None:
    """The type in which products are added up, as kernels spell it (``f16``, ``f32``, ``i32``, …); None where the name
    does not say."""
    found = _NAME.search(kernel)
    return found[1] if found else None


def count_half_sums(kernels: Iterable[str]) -> tuple[int, int]:
    """How many of *kernels* add up in float16, and how many say in what they do."""
    types = [found for found in map(sum_type, kernels) if found is not None]
    return types.count("f16"), len(types)
