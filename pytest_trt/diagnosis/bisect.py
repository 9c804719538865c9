"""Which few of many? The smallest subset for which something holds, in few evaluations. Pure: names and a predicate.

``holds`` is expected to be monotone: what holds for a set holds for a larger one. For k members among n that takes
about (k + 1) · log2 n evaluations, and k more to verify. Nothing breaks where it is not: every set that is returned was
seen to hold, and the contradiction is reported.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["Exhausted", "Found", "heaviest_first", "never", "smallest_subset"]

Subset = frozenset[str]


def never() -> bool:
    """It is not late yet."""
    return False


@dataclass(frozen=True)
class Found:
    """What the search found.

    ``outcome``: ``found``; ``empty``: it holds for no members at all; ``nothing``: it does not hold even for all;
    ``unfinished``: a limit was reached, and ``members`` is the smallest set so far that holds; ``unstable``: the set
    held once, and not when it was asked again. ``minimal``: without any one of the members it was seen not to hold.
    ``contradictions`` are pairs (smaller, larger) of which only the smaller one holds.
    """

    outcome: Literal["found", "empty", "nothing", "unfinished", "unstable"]
    members: tuple[str, ...]
    evaluations: int
    minimal: bool
    contradictions: tuple[tuple[Subset, Subset], ...] = ()


class Exhausted(Exception):  # noqa: N818 - control flow, not an error
    """No evaluation may begin any more. The predicate of ``smallest_subset`` may raise it."""


def smallest_subset(
    candidates: Sequence[str],
    holds: Callable[[Subset], bool],
    *,
    ranked: Sequence[str] | None = None,
    limit: int | None = None,
    late: Callable[[], bool] = never,
) -> Found:
    """Return a smallest subset of *candidates* for which *holds*: no member can be left out.

    *ranked* is the order of suspicion, the likeliest first; by default that of *candidates*. It decides how fast a
    set is found, and which one where several would do. *limit* bounds the evaluations, and none begins once it is
    *late*.
    """
    search = _Search(list(dict.fromkeys(ranked or candidates)), holds, limit, late)
    outcome, members = search.run()
    order = {name: index for index, name in enumerate(candidates)}
    return Found(
        outcome,
        tuple(sorted(members, key=lambda name: order.get(name, len(order)))),
        search.evaluations,
        outcome == "found",
        tuple(search.contradictions()),
    )


def heaviest_first(
    names: Sequence[str],
    weight: Callable[[Subset], float],
    enough: Callable[[Subset], bool],
    *,
    limit: int | None = None,
    late: Callable[[], bool] = never,
) -> list[str]:
    """Return *names*, the heaviest first, as far as that is needed: until those that were found are *enough*.

    *weight* is that of a set, and about the sum of its members' (infinity among them). The heaviest set is halved again
    and again. It ends after 2 · log2 n weighings for each name that was found and two more, after *limit*, or when it
    is *late*: where all weigh about the same there is no order to find.
    """
    weighings = 0

    def weigh(part: Sequence[str]) -> float:
        nonlocal weighings
        weighings += 1
        return weight(frozenset(part))

    heap = [(-weigh(names), 0, len(names))]
    found: list[str] = []
    allowance = 2 * math.ceil(math.log2(max(len(names), 2)))
    while heap and heap[0][0] < 0 and weighings < min(allowance * (len(found) + 2), limit or math.inf) and not late():
        minus, start, end = heapq.heappop(heap)
        if end - start == 1:
            found.append(names[start])
            if enough(frozenset(found)):
                break
            continue
        middle = (start + end) // 2
        left = weigh(names[start:middle])
        # Where one half explains all of the whole, the other one may still do so by itself.
        known = math.isfinite(minus) and left < -minus / 2
        right = -minus - left if known else weigh(names[middle:end])
        heapq.heappush(heap, (-left, start, middle))
        heapq.heappush(heap, (-right, middle, end))
    heap.sort(key=lambda part: part[0] / (part[2] - part[1]))
    rest = [names[index] for _, start, end in heap for index in range(start, end)]
    return list(dict.fromkeys([*found, *rest, *names]))


class _Search:
    def __init__(
        self, ranked: list[str], holds: Callable[[Subset], bool], limit: int | None, late: Callable[[], bool]
    ) -> None:
        self.ranked, self._predicate, self._limit, self._late = ranked, holds, limit, late
        self._known: dict[Subset, bool] = {}
        self.evaluations = 0

    def run(self) -> tuple[Literal["found", "empty", "nothing", "unfinished", "unstable"], list[str]]:
        try:
            if self._holds([]):
                return "empty", []
            if not self._holds(self.ranked):
                return "nothing", []
            members = self._without_needless(self._collect())
            return ("found" if self._ask(frozenset(members)) else "unstable"), members
        except Exhausted:
            holding = sorted((subset for subset, held in self._known.items() if held), key=len)
            return "unfinished", list(holding[0]) if holding else []

    def _collect(self) -> list[str]:
        """Members one by one, the last suspect of the shortest row of suspects that holds. What is collected plus
        ``rest`` was seen to hold at every step, monotone or not."""
        members: list[str] = []
        rest = self.ranked
        while not members or not self._holds(members):
            length = self._shortest_row(members, rest)
            members.append(rest[length - 1])
            rest = rest[: length - 1]
        return members

    def _shortest_row(self, members: list[str], rest: list[str]) -> int:
        fails, holds = 0, len(rest)
        # The likeliest stand in front: doubling reaches a short row in fewer steps than halving.
        length = 1
        while not members and length < holds:
            if self._holds(rest[:length]):
                holds = length
                break
            fails, length = length, length * 2
        while holds - fails > 1:
            middle = (fails + holds) // 2
            if self._holds([*members, *rest[:middle]]):
                holds = middle
            else:
                fails = middle
        return holds

    def _without_needless(self, members: list[str]) -> list[str]:
        """Leave out members until each is needed. A monotone predicate has none to leave out: this verifies it."""
        again = len(members) > 1
        while again:
            again = False
            for name in reversed(members):
                fewer = [other for other in members if other != name]
                if fewer and self._holds(fewer):
                    members, again = fewer, True
                    break
        return members

    def _holds(self, names: Sequence[str]) -> bool:
        subset = frozenset(names)
        if subset not in self._known:
            self._known[subset] = self._ask(subset)
        return self._known[subset]

    def _ask(self, subset: Subset) -> bool:
        if self._late() or (self._limit is not None and self.evaluations >= self._limit):
            raise Exhausted
        self.evaluations += 1
        return self._predicate(subset)

    def contradictions(self) -> Iterator[tuple[Subset, Subset]]:
        failing = [subset for subset, held in self._known.items() if not held]
        for smaller, held in self._known.items():
            yield from ((smaller, larger) for larger in failing if held and smaller < larger)
