"""What the command lines of other tools, that build the engine of a request, have in common.

``trtexec_line`` and ``polygraphy_line`` write them, for a model that the recipe has typed already. A tool's flags come
and go with TensorRT's releases; what a line cannot say, its notes do.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pytest_trt.backends.tensorrt.opsets import opset_remark_for

if TYPE_CHECKING:
    from pytest_trt.backends import BuildOptions, BuildRequest
    from pytest_trt.spec.model import TensorSpec

__all__ = [
    "CommandLine",
    "Draft",
    "Releases",
    "Version",
    "add_builder_flags",
    "dynamic_inputs",
    "known_tactics",
    "note_opset",
    "strongly_typed",
    "type_flags",
]

Version = tuple[int, ...]

# The first release that has something, and the first that has it no more.
Releases = tuple[Version, Version | None]

_GONE_TACTICS = ("CUBLAS", "CUBLAS_LT", "CUDNN")  # from 11 on


@dataclass(frozen=True)
class CommandLine:
    """``words`` as a process takes them, unquoted. ``notes`` say what of the request they leave out or need."""

    words: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The line as a shell reads it."""
        return shlex.join(self.words)


@dataclass
class Draft:
    """A line in the making, for one release of TensorRT. ``flags``: what the tool knows, and in which releases."""

    tool: str
    version: Version
    flags: Mapping[str, Releases]
    words: list[str]
    notes: list[str] = field(default_factory=list)

    @property
    def release(self) -> str:
        return ".".join(map(str, self.version[:2]))

    @property
    def title(self) -> str:
        return f"trtexec {self.release}" if self.tool == "trtexec" else f"{self.tool} with TensorRT {self.release}"

    def has(self, flag: str) -> bool:
        first, gone = self.flags[flag]
        return self.version >= first and (gone is None or self.version < gone)

    def add(self, flag: str, *values: object, asked: str) -> bool:
        """Append *flag* with its *values*, or note that *asked* has no flag; return whether it was appended."""
        if not self.has(flag):
            self.lacks(asked)
            return False
        if self.tool == "trtexec":
            self.words.append(f"{flag}={','.join(map(str, values))}" if values else flag)
        else:
            self.words += [flag, *map(str, values)]
        return True

    def lacks(self, asked: str) -> None:
        self.note(f"{self.title} has no flag for {asked}")

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def finish(self) -> CommandLine:
        return CommandLine(tuple(self.words), tuple(self.notes))


def dynamic_inputs(request: BuildRequest) -> list[TensorSpec]:
    """The inputs whose shapes a profile decides."""
    return [spec for spec in request.model.inputs if not all(isinstance(size, int) for size in spec.shape)]


def note_opset(draft: Draft, request: BuildRequest) -> None:
    """Note that the release does not read the model's opset."""
    if remark := opset_remark_for(draft.version, draft.release, request.model):
        draft.note(remark)


def known_tactics(draft: Draft, options: BuildOptions) -> tuple[str, ...]:
    """The tactic sources that are asked for and that the release has: a tool stops at the name of any other. Notes
    those."""
    unknown = [entry for entry in options.tactics if draft.version >= (11,) and entry[1:] in _GONE_TACTICS]
    for entry in unknown:
        draft.lacks(f"tactics {entry}")
    return tuple(entry for entry in options.tactics if entry not in unknown)


def strongly_typed(draft: Draft, request: BuildRequest) -> bool:
    """Whether the network takes its types from the model. Notes what this release cannot do of what was asked."""
    if draft.version >= (11,):
        if request.options.typing == "weak":
            draft.note("typing=weak: TensorRT 11 has strongly typed networks only")
        if request.calibration is not None:
            draft.note("calibration: TensorRT 11 has none; quantize the model with Q/DQ instead")
        return True
    if draft.version >= (10,):
        return request.options.typing != "weak" and request.calibration is None
    if request.options.typing == "strong":
        draft.note("typing=strong: networks can be strongly typed from TensorRT 10 on")
    return False


def type_flags(draft: Draft, request: BuildRequest) -> list[str]:
    """The builder flags of the request's precision that choose a type, for a weakly typed network. Notes the one that
    8.6 only has the name of."""
    if "FP8" in request.precision.flags_on and draft.version < (9,):
        draft.note(f"FP8: TensorRT {draft.release} has a flag of this name, and cannot use it yet")
    names = [name for name in request.precision.flags_on if name != "TF32"]
    if request.calibration is not None and "INT8" not in names:
        names.append("INT8")
    return names


def add_builder_flags(draft: Draft, options: BuildOptions, known: Mapping[str, tuple[str, ...]]) -> None:
    """Append what turns builder flags on. ``known``: flag -> its words; nothing turns one off."""
    for entry in options.builder_flags:
        words = known.get(entry[1:]) if entry[0] == "+" else None
        if words is None:
            draft.lacks(f"builder_flags {entry}")
        else:
            draft.add(words[0], *words[1:], asked=f"builder_flags {entry}")
