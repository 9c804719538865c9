"""A search for the smallest piece of a graph that still fails: from a suspect outwards, then node by node. No model.

A piece is a set of nodes. What it reads from outside comes recorded, so every set of nodes is a piece, joined or not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

__all__ = ["Found", "Links", "smallest_piece"]


@dataclass(frozen=True)
class Links:
    """Who reads whom: ``readers[n]`` are the nodes that read what node *n* makes; nodes are numbered in graph order.
    ``ends`` make outputs of the whole graph."""

    readers: tuple[frozenset[int], ...]
    ends: frozenset[int]

    @property
    def whole(self) -> frozenset[int]:
        return frozenset(range(len(self.readers)))

    @cached_property
    def _makers(self) -> list[set[int]]:
        found: list[set[int]] = [set() for _ in self.readers]
        for node, readers in enumerate(self.readers):
            for reader in readers:
                found[reader].add(node)
        return found

    def makers(self, node: int) -> set[int]:
        """The nodes that *node* reads from."""
        return self._makers[node]

    def outlets(self, piece: frozenset[int], suspect: int | None) -> frozenset[int]:
        """The nodes of *piece* whose results are judged: those that reach the rest of the graph or its outputs, and are
        reached from the *suspect*. Without a suspect, those that make outputs of the whole graph."""
        if suspect is None:
            return piece & self.ends
        reached = _closure([suspect], lambda node: self.readers[node] & piece)
        return frozenset(node for node in reached if node in self.ends or not self.readers[node] <= piece)

    def pruned(self, piece: frozenset[int], suspect: int | None) -> frozenset[int]:
        """*piece* without nodes that no outlet reads from."""
        return _closure(self.outlets(piece, suspect), lambda node: self.makers(node) & piece)

    def around(self, node: int, radius: int) -> frozenset[int]:
        """*node* and its neighbours at most *radius* steps away, up and down."""
        found = ring = {node}
        for _ in range(radius):
            ring = {n for m in ring for n in self.readers[m] | self.makers(m)} - found
            found = found | ring
        return frozenset(found)

    def distances(self, starts: Iterable[int]) -> dict[int, int]:
        """How many steps each node is away from the nearest of *starts*; others come last."""
        found = dict.fromkeys(starts, 0)
        ring = list(found)
        while ring:
            near = {n: found[m] + 1 for m in ring for n in self.readers[m] | self.makers(m) if n not in found}
            found.update(near)
            ring = list(near)
        return {node: found.get(node, len(self.readers)) for node in range(len(self.readers))}


def _closure(starts: Iterable[int], following: Callable[[int], Collection[int]]) -> frozenset[int]:
    found = set(starts)
    walk = list(found)
    while walk:
        fresh = set(following(walk.pop())) - found
        found |= fresh
        walk += fresh
    return frozenset(found)


@dataclass(frozen=True)
class Found:
    """``piece`` failed when it was tried, or is the whole graph. ``minimal``: no node of it could be left out; else the
    limit was reached first."""

    piece: frozenset[int]
    suspect: int | None
    evaluations: int
    minimal: bool


def smallest_piece(
    links: Links,
    suspects: Sequence[int],
    fails: Callable[[frozenset[int], int | None], bool],
    *,
    limit: int,
    may_go_on: Callable[[], bool] = lambda: True,
) -> Found:
    """Return a small piece for which ``fails(piece, suspect)`` holds, after at most *limit* evaluations.

    Around each of *suspects*, the first ones first, the piece grows in doubling steps until it fails; then all is left
    out that can be, the farthest first, in halves and at last node by node. The suspect stays: what fails without it is
    another fault. Without suspects the piece shrinks towards the outputs, which stay what is judged. No evaluation
    begins once ``may_go_on()`` is false.
    """
    return _Search(links, fails, limit, may_go_on).go(suspects)


class _Over(Exception):  # noqa: N818 - no error: it ends the search from within
    """The limit was reached."""


class _Search:
    def __init__(
        self,
        links: Links,
        fails: Callable[[frozenset[int], int | None], bool],
        limit: int,
        may_go_on: Callable[[], bool],
    ) -> None:
        self.links, self.ask, self.limit, self.may_go_on = links, fails, limit, may_go_on
        self.evaluations = 0
        self.piece: frozenset[int] = links.pruned(links.whole, None)
        self.suspect: int | None = None
        self.known: dict[tuple[frozenset[int], int | None], bool] = {}

    def go(self, suspects: Sequence[int]) -> Found:
        try:
            self.grow(suspects, len(self.piece))
            self.shrink()
        except _Over:
            return Found(self.piece, self.suspect, self.evaluations, False)
        return Found(self.piece, self.suspect, self.evaluations, True)

    def fails(self, piece: frozenset[int], suspect: int | None) -> bool:
        key = piece, suspect
        if not piece:
            return False
        if key not in self.known:
            if self.evaluations >= self.limit or not self.may_go_on():
                raise _Over
            self.evaluations += 1
            self.known[key] = self.ask(piece, suspect)
        return self.known[key]

    def grow(self, suspects: Sequence[int], size: int) -> None:
        radius, settled = 0, set[int]()
        while len(settled) < len(suspects):
            for suspect in suspects:
                piece = self.links.pruned(self.links.around(suspect, radius), suspect)
                if len(piece) >= size:
                    settled.add(suspect)
                elif self.fails(piece, suspect):
                    self.piece, self.suspect = piece, suspect
                    return
            if radius >= len(self.links.readers):
                return
            radius = 2 * radius or 1

    def shrink(self) -> None:
        anchors = self.links.ends if self.suspect is None else (self.suspect,)
        distance = self.links.distances(anchors)
        chunk = max(1, len(self.piece) // 2)
        while True:
            if self.pass_with(chunk, distance):
                chunk = min(chunk, max(1, len(self.piece) // 2))
            elif chunk == 1:
                return
            else:
                chunk //= 2

    def pass_with(self, chunk: int, distance: dict[int, int]) -> bool:
        """Try to leave out each *chunk* of nodes once; return whether one could be."""
        order = sorted(self.piece - {self.suspect}, key=lambda node: (-distance[node], node))
        removed = False
        for start in range(0, len(order), chunk):
            part = self.piece.intersection(order[start : start + chunk])
            rest = self.links.pruned(self.piece - part, self.suspect)
            allowed = bool(part) and (self.suspect is None or self.suspect in rest)
            if allowed and self.fails(rest, self.suspect):
                self.piece, removed = rest, True
        return removed
