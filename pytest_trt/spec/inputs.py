"""InputSet: real or synthetic inputs, and how they become samples at one point of a profile."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pytest_trt.errors import InputsError
from pytest_trt.spec.shapes import Shape, format_shape

__all__ = ["Array", "InputSet", "Sample"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Sample:
    """Inputs for one run, all of the profile point's shape.

    The first ``rows`` of ``batch`` rows are real; the others repeat earlier ones to fill the batch.
    ``labels`` has one entry per real row, ``expected`` the stored outputs of the whole batch.
    """

    feeds: dict[str, Array]
    rows: int
    batch: int
    origin: str
    labels: Array | None = None
    expected: dict[str, Array] | None = None

    def cut(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return *outputs* without the rows that only fill the batch."""
        if self.rows == self.batch:
            return dict(outputs)
        return {k: v[: self.rows] if v.ndim and v.shape[0] == self.batch else v for k, v in outputs.items()}


@dataclass(frozen=True)
class InputSet:
    """Inputs of one model.

    ``sets`` holds the arrays as they were stored, one mapping of input name to array each; one file is
    one set, and every ``test_data_set_N`` or Polygraphy iteration is one. ``labels`` are class indices, one
    per row over all sets. ``expected`` is empty or has the stored outputs of each set (None: has none).
    ``notes`` say what was converted or chosen on the user's behalf.
    """

    sets: tuple[Mapping[str, Array], ...]
    origin: str
    synthetic: bool = False
    labels: Array | None = None
    expected: tuple[Mapping[str, Array] | None, ...] = ()
    notes: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of names, types, shapes and values, labels and expected outputs included."""
        digest = hashlib.sha256(b"inputs-1")
        parts: list[tuple[str, Mapping[str, Array]]] = [("feeds", feeds) for feeds in self.sets]
        parts += [("expected", outputs or {}) for outputs in self.expected]
        parts += [("labels", {} if self.labels is None else {"": self.labels})]
        for kind, arrays in parts:
            for name in sorted(arrays):
                array = np.ascontiguousarray(arrays[name])
                digest.update(repr((kind, name, str(array.dtype), arrays[name].shape)).encode())
                digest.update(array.reshape(-1).view(np.uint8).data)
            digest.update(f"end {kind}".encode())
        return digest.hexdigest()

    def with_expected(self, outputs: tuple[Mapping[str, Array], ...]) -> InputSet:
        """Return this set with stored *outputs*, one mapping per set. Raises InputsError when the counts differ."""
        if len(outputs) != len(self.sets):
            raise InputsError(
                f"{len(outputs)} sets of stored outputs, but {len(self.sets)} of inputs ({self.origin})",
                hint="store one set of outputs per set of inputs, in the same order",
            )
        return replace(self, expected=tuple(outputs))

    def left_out(self, shapes: Mapping[str, Shape]) -> tuple[str, ...]:
        """Return the titles of the sets that ``samples(shapes)`` cannot use, because their shapes do not fit."""
        return tuple(self._title(i) for i, feeds in enumerate(self.sets) if _layout(feeds, shapes)[0] == "misfit")

    def samples(self, shapes: Mapping[str, Shape], *, limit: int | None = None) -> list[Sample]:
        """Return the samples at the profile point *shapes*, at most *limit* of them.

        A set whose arrays have exactly these shapes is one sample. Arrays of N rows, one N for all inputs,
        are cut into ceil(N / B) batches; the last one is filled up from the first rows. Rows of several sets
        are joined. Arrays with one axis more, ``(N, *shape)``, are N samples. Sets that fit in none of these
        ways are left out (see ``left_out``).

        Raises InputsError when no set fits, or when the number of labels is not the number of rows.
        """
        layouts = [_layout(feeds, shapes) for feeds in self.sets]
        if all(kind == "misfit" for kind, _ in layouts):
            raise self._misfit(shapes)
        starts = self._label_starts(layouts)
        result: list[Sample] = []
        for sample in self._cut(shapes, layouts, starts):
            if limit is not None and len(result) >= limit:
                break
            result.append(sample)
        return result

    def _cut(self, shapes: Mapping[str, Shape], layouts: list[tuple[str, int]], starts: list[int]) -> Iterator[Sample]:
        pool = []
        for index, (kind, count) in enumerate(layouts):
            if kind == "exact":
                labels = self._labels(np.arange(starts[index], starts[index] + count))
                yield Sample(
                    self._feeds(index, shapes), count, count, self._title(index), labels, self._expected(index)
                )
            elif kind == "rows":
                pool.append(index)
            elif kind == "stack":
                for n in range(count):
                    feeds = {name: self.sets[index][name][n, ...] for name in shapes}
                    expected = _take(self._expected(index), np.array([n]), count, squeeze=True)
                    labels = self._labels(np.array([starts[index] + n]))
                    yield Sample(feeds, 1, 1, f"{self._title(index)}[{n}]", labels, expected)
        if pool:
            yield from self._batches(pool, shapes, [layouts[i][1] for i in pool], [starts[i] for i in pool])

    def _batches(
        self, pool: list[int], shapes: Mapping[str, Shape], counts: list[int], starts: list[int]
    ) -> Iterator[Sample]:
        feeds = {name: _join([self.sets[i][name] for i in pool]) for name in shapes}
        expected = _join_expected([self._expected(i) for i in pool], counts)
        label_rows = np.concatenate([np.arange(s, s + c) for s, c in zip(starts, counts, strict=True)])
        total, batch = sum(counts), next(iter(shapes.values()))[0]
        title = ", ".join(self._title(i) for i in pool) if len(pool) <= 3 else f"{len(pool)} sets"
        for first in range(0, total, batch):
            last = min(first + batch, total)
            full = last - first == batch
            # A slice is a view; only the filled-up batch is copied.
            rows: Any = slice(first, last) if full else np.arange(first, first + batch) % total
            yield Sample(
                {name: array[rows] for name, array in feeds.items()},
                last - first,
                batch,
                f"{title} rows {first}..{last - 1}",
                self._labels(label_rows[first:last]),
                _take(expected, rows, total),
            )

    def _label_starts(self, layouts: list[tuple[str, int]]) -> list[int]:
        counts = [count if kind != "misfit" else _rows(f) for f, (kind, count) in zip(self.sets, layouts, strict=True)]
        if self.labels is not None and len(self.labels) != sum(counts):
            raise InputsError(
                f"{self.origin}: {len(self.labels)} labels for {sum(counts)} rows", hint="store one label per row"
            )
        return [sum(counts[:i]) for i in range(len(counts))]

    def _labels(self, rows: Array) -> Array | None:
        return None if self.labels is None else self.labels[rows]

    def _feeds(self, index: int, shapes: Mapping[str, Shape]) -> dict[str, Array]:
        return {name: self.sets[index][name] for name in shapes}

    def _expected(self, index: int) -> dict[str, Array] | None:
        outputs = self.expected[index] if self.expected else None
        return None if outputs is None else dict(outputs)

    def _title(self, index: int) -> str:
        return self.titles[index] if self.titles else self.origin

    def _misfit(self, shapes: Mapping[str, Shape]) -> InputsError:
        feeds, rows = self.sets[0], []
        for name, shape in shapes.items():
            if name not in feeds:
                return InputsError(f"{self.origin}: has no array for input {name!r}", hint="store one under this name")
            actual, wanted = feeds[name].shape, format_shape(shape)
            rows.append(f"{name!r} {format_shape(actual)} for {wanted}")
            if actual == shape or (actual and actual[1:] in (shape, shape[1:])):
                continue
            batch = f"rows of {format_shape(shape[1:])} with a batch axis in front, " if shape else ""
            return InputsError(
                f"{self.origin}: input {name!r} is {format_shape(actual)}, but the profile asks for {wanted}",
                hint=f"give {wanted}, {batch}or a stack of samples of {wanted}; or add a profile of the stored shape",
            )
        if empty := [name for name in shapes if 0 in feeds[name].shape[:1]]:
            return InputsError(f"{self.origin}: input {empty[0]!r} has no rows", hint="store at least one")
        return InputsError(
            f"{self.origin}: the inputs do not have the same rows: {', '.join(rows)}",
            hint="give all inputs one number of rows (at least one) on the first axis, or stack samples: (N, *shape)",
        )


def _layout(feeds: Mapping[str, Array], shapes: Mapping[str, Shape]) -> tuple[str, int]:
    """Return how *feeds* lie to *shapes* (exact, rows, stack, misfit), and how many rows or samples they are."""
    if any(name not in feeds for name in shapes):
        return "misfit", 0
    pairs = [(feeds[name].shape, tuple(shape)) for name, shape in shapes.items()]
    if all(actual == shape for actual, shape in pairs):
        return "exact", _rows({name: feeds[name] for name in shapes})
    counts = {actual[0] if actual else 0 for actual, _ in pairs}
    if len(counts) != 1 or counts == {0}:
        return "misfit", 0
    if (
        all(len(a) == len(s) and a[1:] == s[1:] for a, s in pairs)
        and len({s[0] for _, s in pairs}) == 1
        and pairs[0][1][0]
    ):
        return "rows", counts.pop()
    if all(actual[1:] == shape for actual, shape in pairs):
        return "stack", counts.pop()
    return "misfit", 0


def _rows(feeds: Mapping[str, Array]) -> int:
    """Return the common first axis of *feeds*, or 1 where there is none."""
    counts = {array.shape[0] if array.ndim else 0 for array in feeds.values()}
    return max(counts.pop(), 1) if len(counts) == 1 else 1


def _join(arrays: list[Array]) -> Array:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _join_expected(parts: list[dict[str, Array] | None], counts: list[int]) -> dict[str, Array] | None:
    known = [part for part in parts if part is not None]
    if len(known) != len(parts) or any(part.keys() != known[0].keys() for part in known):
        return None
    for part, count in zip(known, counts, strict=True):
        if any(not a.ndim or a.shape[0] != count for a in part.values()):
            return None
    if any(part[name].shape[1:] != known[0][name].shape[1:] for part in known for name in part):
        return None
    return {name: _join([part[name] for part in known]) for name in known[0]}


def _take(
    expected: dict[str, Array] | None, rows: Any, total: int, *, squeeze: bool = False
) -> dict[str, Array] | None:
    # Outputs that do not have one entry per row cannot be cut along with the inputs.
    if expected is None or any(not a.ndim or a.shape[0] != total for a in expected.values()):
        return None
    return {name: array[rows][0, ...] if squeeze else array[rows] for name, array in expected.items()}
