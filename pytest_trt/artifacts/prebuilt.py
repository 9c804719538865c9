"""A plan that somebody else built. It is loaded only when its digest was named."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from pytest_trt.artifacts.engines import StoredEngine
from pytest_trt.errors import ModelError, UnsafeModelError, UsageError

__all__ = ["MINIMUM_DIGITS", "read_plan"]

# 64 bits: nobody finds another plan with the same first digits.
MINIMUM_DIGITS = 16


def read_plan(path: Path, trust: str | None) -> StoredEngine:
    """Return the plan at *path*, whose SHA-256 begins with *trust* (at least 16 hexadecimal digits) or, where that is a
    list with commas, with one of them.

    A plan is a program for the GPU, and TensorRT reads it without protection against a forged one. Raises
    UnsafeModelError where no digest is given or another one, UsageError for what is no digest, and ModelError for a
    file that cannot be read.
    """
    try:
        plan = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: the plan cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(plan).hexdigest()
    if not plan:
        raise ModelError(f"{path}: the plan is empty")
    if trust is None:
        raise UnsafeModelError(
            f"{path}: a plan runs code on the GPU, and nobody vouched for this one; its SHA-256 is {digest}",
            hint=f'if you know where it comes from: --trt-trust={digest[:MINIMUM_DIGITS]}, or trust = "{digest}" in'
            " [model]",
        )
    if not digest.startswith(tuple(_digits(one) for one in trust.split(","))):
        raise UnsafeModelError(
            f"{path}: this is not the plan that is trusted: its SHA-256 is {digest}, not {trust}…",
            hint="the file was replaced, built again, or damaged; trust the new digest only if you know which",
        )
    facts = {"prebuilt": path.name, "sha256": digest, "plan_bytes": len(plan)}
    return StoredEngine(plan, facts, False, digest, sha256=digest)


def _digits(trust: str) -> str:
    digits = trust.strip().lower().removeprefix("sha256:")
    if not re.fullmatch(rf"[0-9a-f]{{{MINIMUM_DIGITS},64}}", digits):
        raise UsageError(
            f"trust {trust!r} is no SHA-256",
            hint=f"its first {MINIMUM_DIGITS} to 64 hexadecimal digits: sha256sum net.plan",
        )
    return digits
