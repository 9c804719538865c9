"""A PyTorch module -> ONNX, with PyTorch's own exporters."""

from __future__ import annotations

import re
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from inspect import Parameter, signature
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_trt.artifacts.export_shapes import example_shapes, export_specs
from pytest_trt.artifacts.sources import install_hint
from pytest_trt.backends import Progress
from pytest_trt.environment import version_of
from pytest_trt.errors import ManifestError, ModelError
from pytest_trt.spec.manifest import EXPORTERS, Manifest

if TYPE_CHECKING:
    import onnx

    from pytest_trt.spec.model import TensorSpec

__all__ = ["export_ingredients", "export_module", "is_torch_module"]

# TensorRT 8.6 reads up to 17. The dynamo exporter writes no less than 18.
OPSETS = {"torchscript": 17, "dynamo": 18}
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def is_torch_module(thing: object) -> bool:
    """Whether *thing* is a torch.nn.Module (not the class of one). Never imports torch: without it nothing is one."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(thing, torch.nn.Module)


def export_ingredients(manifest: Manifest) -> dict[str, Any]:
    """What an export depends on besides the module."""
    return {
        "exporter": manifest.exporter,
        "opset": OPSETS[manifest.exporter],
        "inputs": [[spec.name, spec.dtype, list(spec.shape)] for spec in _declared(manifest)],
        "outputs": [spec.name for spec in manifest.interface.outputs] if manifest.interface else [],
        "profiles": {name: profile.describe() for name, profile in manifest.profiles.items()},
        "ranges": {name: list(limits) for name, limits in manifest.ranges.items()},
        "packages": {name: version_of(name) or "missing" for name in ("torch", "onnxscript")},
    }


def export_module(manifest: Manifest, made: Any, progress: Progress) -> onnx.ModelProto:
    """Export *made*, a module or ``(module, example inputs)``, as it behaves in evaluation, on the CPU.

    Dimensions that the profiles leave open become symbolic. Raises ModelError with the exporter's words, and
    ManifestError where neither examples nor the manifest say the inputs.
    """
    import torch

    module, given = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not is_torch_module(module):
        raise ModelError(f"{manifest.file}: {manifest.source} returned {made!r:.100}, not (module, example inputs)")
    where = f"{manifest.file}: {manifest.source}"
    parameters = _parameters(module)
    examples = None if given is None else _named_examples(given, parameters, where)
    specs = export_specs(
        manifest.profiles,
        _declared(manifest),
        examples and {name: (_dtype(tensor), tuple(tensor.shape)) for name, tensor in examples.items()},
        where,
    )
    tensors = _tensors(manifest, specs) if examples is None else [examples[spec.name] for spec in specs]
    names = [spec.name for spec in specs]
    progress(f"exporting {manifest.name} from torch {torch.__version__} with {manifest.exporter}")
    try:
        with warnings.catch_warnings(record=True) as caught, torch.no_grad():
            warnings.simplefilter("always")
            flat = _flat(module, names, parameters, where).eval().cpu()
            outputs = _output_names(manifest, flat, tensors)
            proto = _export(flat, tuple(tensors), specs, outputs, manifest)
    except (ModelError, ManifestError):
        raise
    # The module is the user's and the exporter raises what it likes: one failed model, with its words.
    except Exception as error:
        said = _COLOURS.sub("", f"{type(error).__name__}: {error}").strip()
        other = next(name for name in EXPORTERS if name != manifest.exporter)
        raise ModelError(
            f"{where}: the export failed: {said}",
            hint=install_hint(error) or f'correct the module, or try exporter = "{other}" in [model]',
        ) from error
    traced = [str(w.message).splitlines()[0] for w in caught if issubclass(w.category, torch.jit.TracerWarning)]
    for text in dict.fromkeys(traced):
        progress(f"the export of {manifest.name} warns: {text}")
    return proto


def _declared(manifest: Manifest) -> tuple[TensorSpec, ...]:
    return manifest.interface.inputs if manifest.interface else ()


def _parameters(module: Any) -> list[str]:
    """The names of forward's parameters that take one value each."""
    kinds = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    try:
        return [name for name, p in signature(module.forward).parameters.items() if p.kind in kinds]
    except ValueError:  # a scripted forward has no signature of Python's
        return []


def _named_examples(given: Any, parameters: Sequence[str], where: str) -> dict[str, Any]:
    import torch

    if isinstance(given, torch.Tensor):
        given = (given,)
    if isinstance(given, (tuple, list)) and len(given) <= len(parameters):
        given = dict(zip(parameters, given, strict=False))
    if not isinstance(given, Mapping) or not all(isinstance(tensor, torch.Tensor) for tensor in given.values()):
        raise ModelError(
            f"{where}: its example inputs are no tensors for forward({', '.join(parameters)})",
            hint="return (module, (tensor, …)) or (module, {name: tensor})",
        )
    return {name: tensor.detach().cpu() for name, tensor in given.items()}


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.").replace("8_e", "8e")


def _tensors(manifest: Manifest, specs: tuple[TensorSpec, ...]) -> list[Any]:
    """Seeded examples: a trace follows their values where the module branches on them."""
    import numpy as np
    import torch

    from pytest_trt.spec.synthetic import synthetic_inputs

    shapes = example_shapes(specs, manifest.profiles)
    (arrays,) = synthetic_inputs(specs, shapes, ranges=manifest.ranges).sets
    # Types of ml_dtypes mean nothing to torch: they go over float32.
    plain = {name: a.astype(np.float32) if a.dtype.kind == "V" else a for name, a in arrays.items()}
    return [torch.from_numpy(np.array(plain[s.name])).to(getattr(torch, s.dtype.replace("8e", "8_e"))) for s in specs]


def _flat(module: Any, names: Sequence[str], parameters: Sequence[str], where: str) -> Any:
    """*module* with inputs in the order of *names*, and a tuple of tensors as its output; a scripted one as it is."""
    import torch

    if isinstance(module, torch.jit.ScriptModule):
        return module

    known = [name for name in names if name in parameters]
    if known and len(known) != len(names):
        unknown = next(name for name in names if name not in parameters)
        raise ManifestError(f"{where}: forward has no parameter {unknown!r}; it has {', '.join(parameters)}")

    class Flat(torch.nn.Module):  # type: ignore[misc]  # torch is Any where it is not installed
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def call(self, *tensors: Any) -> Any:
            return self.module(**dict(zip(names, tensors, strict=True))) if known else self.module(*tensors)

        def forward(self, *tensors: Any) -> tuple[Any, ...]:
            return tuple(tensor for _, tensor in _leaves(self.call(*tensors), ""))

    return Flat()


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The tensors in what a module returned: keys are names, positions are numbers; all else is left out."""
    import torch

    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, (Mapping, tuple, list)):
        for key, item in value.items() if isinstance(value, Mapping) else enumerate(value):
            yield from _leaves(item, f"{name}_{key}" if name else str(key))


def _output_names(manifest: Manifest, flat: Any, tensors: Sequence[Any]) -> list[str]:
    names = [name for name, _ in _leaves(getattr(flat, "call", flat)(*tensors), "")]
    if not names:
        raise ModelError(f"{manifest.file}: {manifest.source} returns no tensor")
    if manifest.interface and manifest.interface.outputs:
        declared = [spec.name for spec in manifest.interface.outputs]
        if len(declared) != len(names):
            raise ManifestError(
                f"{manifest.file}: [interface.outputs] names {len(declared)} outputs, the module has {len(names)}"
            )
        return declared
    return [f"output_{name}" if name[:1].isdigit() else name or "output" for name in names]


def _export(
    flat: Any, tensors: tuple[Any, ...], specs: Sequence[TensorSpec], outputs: list[str], manifest: Manifest
) -> onnx.ModelProto:
    import torch

    from pytest_trt.spec.loading import load_proto

    axes = [{i: d for i, d in enumerate(spec.shape) if isinstance(d, str)} for spec in specs]
    names = [spec.name for spec in specs]
    dynamo = manifest.exporter == "dynamo"
    options: dict[str, Any] = {"dynamic_axes": dict(zip(names, axes, strict=True))}
    if dynamo:
        options = {"dynamic_shapes": (tuple(axes),), "verbose": False}
    if "dynamo" in signature(torch.onnx.export).parameters:  # torch 2.5 and later
        options["dynamo"] = dynamo
    with tempfile.TemporaryDirectory(prefix="pytest-trt-") as folder:
        file = Path(folder) / "model.onnx"
        torch.onnx.export(
            flat,
            tensors,
            str(file),
            opset_version=OPSETS[manifest.exporter],
            input_names=names,
            output_names=outputs,
            **options,
        )
        return load_proto(file)
