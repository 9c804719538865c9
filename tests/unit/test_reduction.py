"""The search for the smallest piece that fails: graphs of numbers, and a predicate in the place of a model."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pytest_trt.diagnosis.reduction import Found, Links, smallest_piece

Piece = frozenset[int]


def links(size: int, edges: list[tuple[int, int]]) -> Links:
    readers: list[set[int]] = [set() for _ in range(size)]
    for maker, reader in edges:
        readers[maker].add(reader)
    return Links(tuple(map(frozenset, readers)), frozenset({size - 1}))


def chain(size: int) -> Links:
    return links(size, [(i, i + 1) for i in range(size - 1)])


def search(graph: Links, suspects: list[int], needed: set[int], limit: int = 200) -> tuple[Found, list[Piece]]:
    """A piece fails when it has all of *needed*."""
    asked: list[Piece] = []

    def fails(piece: Piece, suspect: int | None) -> bool:
        asked.append(piece)
        return needed <= piece

    return smallest_piece(graph, suspects, fails, limit=limit), asked


@pytest.mark.parametrize("culprit", [0, 17, 63])
def test_a_suspect_that_fails_alone_is_all(culprit: int) -> None:
    found, asked = search(chain(64), [culprit], {culprit})

    assert (found.piece, found.suspect, found.minimal) == ({culprit}, culprit, True)
    assert asked == [{culprit}]


def test_what_the_suspect_needs_is_found_around_it() -> None:
    found, asked = search(chain(64), [20], {18, 19, 20, 21})

    assert found.piece == {18, 19, 20, 21}
    assert found.minimal
    assert len(asked) <= 12


def test_the_piece_need_not_be_joined_by_the_nodes_between() -> None:
    """What lies between comes recorded."""
    tail = [(i, i + 1) for i in range(5, 20)]
    graph = links(21, [(0, 1), (1, 2), (2, 3), (0, 4), (4, 3), (3, 5), *tail])
    found, _ = search(graph, [3], {0, 3})

    assert found.piece in ({0, 1, 2, 3}, {0, 3, 4})  # a node is of use only where its result goes on


def test_nodes_that_no_outlet_reads_from_are_left_out() -> None:
    graph = links(5, [(0, 2), (1, 2), (2, 3), (3, 4)])

    assert graph.pruned(frozenset({1, 2, 4}), 2) == {1, 2}
    assert graph.pruned(frozenset({0, 1, 3, 4}), None) == {3, 4}
    assert graph.outlets(frozenset({2, 3}), 2) == {3}
    assert graph.outlets(frozenset({0, 2}), 0) == {2}


def test_the_second_suspect_is_taken_where_the_first_one_does_not_fail() -> None:
    found, asked = search(chain(40), [5, 30], {30})

    assert (found.piece, found.suspect) == ({30}, 30)
    assert asked == [{5}, {30}]


def test_without_suspects_the_outputs_stay() -> None:
    found, asked = search(chain(64), [], {40, 63})

    assert found.suspect is None
    assert found.piece == set(range(40, 64))  # recorded beyond 40, all to the output
    assert found.minimal
    assert len(asked) < 40


def test_suspects_that_never_fail_leave_the_search_to_the_outputs() -> None:
    graph = chain(16)
    found = smallest_piece(graph, [3], lambda piece, suspect: suspect is None and 9 in piece, limit=100)

    assert found.suspect is None
    assert found.piece == set(range(9, 16))


def test_the_limit_is_kept_and_told() -> None:
    found, asked = search(chain(64), [], {1, 63}, limit=5)

    assert len(asked) == found.evaluations == 5
    assert not found.minimal
    assert {1, 63} <= found.piece


def test_nothing_is_asked_once_time_is_over() -> None:
    def never(piece: Piece, suspect: int | None) -> bool:
        raise AssertionError(piece)

    found = smallest_piece(chain(8), [3], never, limit=10, may_go_on=lambda: False)

    assert (found.piece, found.evaluations, found.minimal) == (frozenset(range(8)), 0, False)


@pytest.mark.parametrize(
    "fails", [lambda piece, suspect: False, lambda piece, suspect: len(piece) == 20], ids=["never", "whole"]
)
def test_a_fault_of_no_piece_leaves_the_whole(fails: Callable[[Piece, int | None], bool]) -> None:
    found = smallest_piece(chain(20), [7], fails, limit=200)

    assert found.piece == frozenset(range(20))
    assert found.minimal


def test_a_piece_is_never_asked_twice() -> None:
    asked: list[tuple[Piece, int | None]] = []

    def fails(piece: Piece, suspect: int | None) -> bool:
        asked.append((piece, suspect))
        return {9, 10, 13} <= piece

    found = smallest_piece(chain(50), [10, 11, 12], fails, limit=100)

    assert len(set(asked)) == len(asked) == found.evaluations
    assert found.piece == {9, 10, 11, 12, 13}
