"""Exit codes of the shell."""

from __future__ import annotations

__all__ = ["ENVIRONMENT", "INCONCLUSIVE", "MISMATCH", "NOTHING", "PASS", "USAGE"]

PASS, MISMATCH, USAGE, INCONCLUSIVE, NOTHING, ENVIRONMENT = range(6)
