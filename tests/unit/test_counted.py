"""One of something is not several."""

from __future__ import annotations

from pytest_trt.counted import counted


def test_the_noun_follows_the_number() -> None:
    assert [counted(count, "node") for count in (0, 1, 2)] == ["0 nodes", "1 node", "2 nodes"]
