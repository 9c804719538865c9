"""What may be fed: an array for each input, of a shape in the profile. All backends refuse what TensorRT refuses."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from pytest_trt.errors import InputsError, RunError, nearest
from pytest_trt.spec.shapes import Profile, Shape, format_shape

if TYPE_CHECKING:
    from pytest_trt.backends import Feeds

__all__ = ["check_feeds", "check_names", "check_shape"]


def check_feeds(inputs: Collection[str], profile: Profile, feeds: Feeds) -> None:
    """Raise InputsError as ``check_names`` does, and RunError for the first shape that is outside *profile*."""
    check_names(inputs, feeds)
    for name, allowed in profile.ranges.items():
        if name in feeds:
            check_shape(name, np.shape(feeds[name]), allowed.min, allowed.max, profile.name)


def check_names(inputs: Collection[str], feeds: Feeds, unused: Collection[str] = ()) -> None:
    """Raise InputsError for a name that is neither in *inputs* nor in *unused*, and for an input without an array."""
    for name in feeds:
        if name not in inputs and name not in unused:
            raise InputsError(f"there is no input {name!r}", hint=nearest(name, inputs))
    missing = sorted(set(inputs) - set(feeds))
    if missing:
        raise InputsError(f"no array for input {missing[0]!r}", hint=f"inputs: {', '.join(sorted(inputs))}")


def check_shape(name: str, shape: Shape, low: Shape, high: Shape, profile: str) -> None:
    """Raise RunError where input *name* is fed a *shape* that is not between *low* and *high*, of *profile*."""
    fits = len(shape) == len(low) and all(a <= size <= b for size, a, b in zip(shape, low, high, strict=True))
    if not fits:
        allowed = format_shape(low) + (f" to {format_shape(high)}" if low != high else "")
        raise RunError(
            f"input {name!r}: shape {format_shape(shape)} is outside profile {profile!r}, which allows {allowed}",
            hint="run with shapes inside the profile, or build with a wider one",
        )
