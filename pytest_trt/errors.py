"""Every exception of the package.

::

    TrtError                      something the user can act on; prints as text, never as a traceback
    ├── UsageError                an option, a marker or a manifest is wrong
    │   └── ManifestError         … in a trt.toml
    ├── ModelError                the ONNX model cannot be used
    │   ├── StaleModelError       it was changed while a run used it
    │   ├── UnsafeModelError      it reaches outside its folder
    │   └── UnsupportedModelError it takes or gives what no engine does; an UnsupportedError as well
    ├── ProfileError              shapes do not fit the model
    ├── InputsError               inputs or stored outputs cannot be used
    ├── MetricError               a metric of the manifest cannot be computed
    ├── PrecisionError            a recipe cannot be applied to this model
    ├── BackendError
    │   ├── BackendUnavailableError   the library, driver or device is missing
    │   ├── UnsupportedError      this backend cannot run this case (a skip with a reason)
    │   ├── BuildError            parsing or building failed
    │   └── RunError              the engine failed while running
    ├── ArtifactError             the cache cannot give what was asked
    │   └── CorruptEntryError     an entry does not match its recorded digest
    └── BaselineError             a baseline file cannot be read or written

    Failure (AssertionError)      the engine works, but the verdict is red
    ├── AccuracyFailure
    ├── EngineFailure             its precision, structure, tactics or repeatability is not what it should be
    ├── LatencyFailure
    └── BaselineFailure           its baseline is in a state that must not pass
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "AccuracyFailure",
    "ArtifactError",
    "BackendError",
    "BackendUnavailableError",
    "BaselineError",
    "BaselineFailure",
    "BuildError",
    "CorruptEntryError",
    "EngineFailure",
    "Failure",
    "InputsError",
    "LatencyFailure",
    "ManifestError",
    "MetricError",
    "ModelError",
    "PrecisionError",
    "ProfileError",
    "RunError",
    "StaleModelError",
    "TrtError",
    "UnsafeModelError",
    "UnsupportedError",
    "UnsupportedModelError",
    "UsageError",
    "nearest",
]


class TrtError(Exception):
    """Base of all errors that a user can act on.

    ``message`` says what is wrong and where; ``hint`` says what to do about it.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message

    def again(self) -> TrtError:
        """Return the same error without a traceback, to be raised another time: a traceback keeps arrays alive."""
        return type(self)(self.message, hint=self.hint)


class UsageError(TrtError):
    """An option, a marker argument or a manifest key is wrong."""


class ManifestError(UsageError):
    """A ``trt.toml`` cannot be used as it is written."""


class ModelError(TrtError):
    """The ONNX model is broken, or asks for something that is not supported."""


class StaleModelError(ModelError):
    """The model is another one than it was when this run looked it up."""


class UnsafeModelError(ModelError):
    """The model reaches outside its own folder."""


class ProfileError(TrtError):
    """Shapes do not fit the model's inputs, or min ≤ opt ≤ max does not hold."""


class InputsError(TrtError):
    """Input samples or stored outputs are missing, unreadable, or do not fit the model."""


class MetricError(TrtError):
    """A metric of the manifest cannot be computed; the message says where its function failed."""


class PrecisionError(TrtError):
    """A precision recipe cannot be applied to this model."""


class BackendError(TrtError):
    """A backend failed."""


class BackendUnavailableError(BackendError):
    """The library, the driver or the device that a backend needs is missing."""


class UnsupportedError(BackendError):
    """This backend cannot run this case at all; the message is the reason of the skip."""


class UnsupportedModelError(ModelError, UnsupportedError):
    """The model is sound, but takes or gives what no engine does: sequences, optionals, maps, strings. A skip."""


class BuildError(BackendError):
    """Parsing the model or building the engine failed. ``log`` is what the builder said before, one message a line."""

    def __init__(self, message: str, *, hint: str | None = None, log: str = "") -> None:
        super().__init__(message, hint=hint)
        self.log = log

    def again(self) -> BuildError:
        return type(self)(self.message, hint=self.hint, log=self.log)


class RunError(BackendError):
    """A built engine failed while running."""


class ArtifactError(TrtError):
    """The artifact store cannot give or keep what was asked."""


class CorruptEntryError(ArtifactError):
    """A stored entry does not match the digest that was recorded for it."""


class BaselineError(TrtError):
    """A baseline file cannot be read or written."""


class Failure(AssertionError):  # noqa: N818 - a red verdict is no error
    """A red verdict. ``summary`` is one line; ``detail`` is the evidence, several lines."""

    def __init__(self, summary: str, detail: str = "") -> None:
        super().__init__(summary if not detail else f"{summary}\n\n{detail}")
        self.summary = summary
        self.detail = detail


class AccuracyFailure(Failure):
    """Outputs are not close to the reference."""


class EngineFailure(Failure):
    """The engine is not the one that was asked for or recorded, or does not give the same twice."""


class LatencyFailure(Failure):
    """The latency gate is red."""


class BaselineFailure(Failure):
    """A waiver has expired, or a strict run found no baseline that gates."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``did you mean 'x'?`` for the closest of *known*, or what is known when none is close."""
    choices = sorted(known)
    alike = [choice for choice in choices if choice.lower() == name.lower()]  # FP16 has no letter of fp16
    close = alike or difflib.get_close_matches(name, choices, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    more = f", … ({len(choices)} in all)" if len(choices) > 20 else ""
    return "known: " + ", ".join(choices[:20]) + more
