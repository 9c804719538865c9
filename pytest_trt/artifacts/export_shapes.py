"""What an export has to know before it can run: inputs, types, and which dimensions stay open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pytest_trt.errors import ManifestError
from pytest_trt.spec.model import TensorSpec
from pytest_trt.spec.shapes import Profile, Shape

__all__ = ["example_shapes", "export_specs"]


def export_specs(
    profiles: Mapping[str, Profile],
    declared: Sequence[TensorSpec],
    examples: Mapping[str, tuple[str, Shape]] | None,
    where: str,
) -> tuple[TensorSpec, ...]:
    """The inputs of an export, from whatever says them.

    Names and types are those of *declared* (``[interface.inputs]``), else of *examples* (name -> type and shape), else
    those of the profiles, in float32. A dimension with one size in all profiles is fixed, the others are symbolic:
    declared symbols, ``N`` for all first dimensions that always agree, else ``NAME_AXIS``.

    Raises ManifestError where nobody says the inputs, or two say different ones.
    """
    by_declared = {spec.name: spec for spec in declared}
    named = {name: list(profile.ranges) for name, profile in profiles.items()}
    names = list(by_declared) or list(examples or ()) or next(iter(named.values()), [])
    if not names:
        raise ManifestError(
            f"{where} is a torch.nn.Module, and nothing says the shapes of its inputs",
            hint="add [profiles.NAME] with one line per input, or return (module, example inputs)",
        )
    given = {f"profile {name!r}": inputs for name, inputs in named.items()}
    if examples is not None:
        given["the example"] = list(examples)
    for whose, inputs in given.items():
        if set(inputs) != set(names):
            raise ManifestError(f"{where}: {whose} has the inputs {', '.join(inputs)}, not {', '.join(names)}")
    points = {name: _points(profiles, name) for name in names}
    if examples is not None and not profiles:
        points = {name: [examples[name][1]] for name in names}
    batch: list[int] | None = None
    specs = []
    for name in names:
        spec, shapes = by_declared.get(name), points[name]
        if len({len(shape) for shape in (*shapes, *([spec.shape] if spec else []))}) > 1:
            raise ManifestError(f"{where}: input {name!r} is given shapes of different ranks")
        dims: list[int | str | None] = []
        for axis in range(len(spec.shape if spec else shapes[0])):
            sizes = [shape[axis] for shape in shapes]
            said = spec.shape[axis] if spec else None
            if said is not None:
                dims.append(said)
            elif spec is None and len(set(sizes)) == 1:
                dims.append(sizes[0])
            elif axis == 0 and batch in (None, sizes):
                batch = sizes
                dims.append("N")
            else:
                dims.append(f"{name}_{axis}")
        dtype = spec.dtype if spec else examples[name][0] if examples else "float32"
        specs.append(TensorSpec(name, dtype, tuple(dims)))
    return tuple(specs)


def example_shapes(specs: Sequence[TensorSpec], profiles: Mapping[str, Profile]) -> dict[str, Shape]:
    """The shapes to export at: the first profile's opt, and 2 where an open dimension is 1 there or not said: some
    exporters take a size of 1 for a fixed one."""
    first = next(iter(profiles.values()), None)
    shapes = {}
    for spec in specs:
        opt: Sequence[int | str | None] = first.ranges[spec.name].opt if first else spec.shape
        shapes[spec.name] = tuple(
            dim if isinstance(dim, int) else max(2, size if isinstance(size, int) else 0)
            for dim, size in zip(spec.shape, opt, strict=True)
        )
    return shapes


def _points(profiles: Mapping[str, Profile], name: str) -> list[Shape]:
    ranges = [profile.ranges[name] for profile in profiles.values()]
    return [shape for r in ranges for shape in (r.min, r.opt, r.max)]
