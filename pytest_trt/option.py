"""Option: one declaration, from which all its spellings follow, and the words of its values."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pytest_trt.errors import UsageError

__all__ = ["ENV_PREFIX", "Option", "as_text", "as_words", "flag_of", "option"]

ENV_PREFIX = "PYTEST_TRT_"

# A name that the command line has another word for; it takes the name too.
_WORDS = {"plugins": "plugin"}


def flag_of(name: str, prefix: str = "--trt-") -> str:
    """How the command line writes the option *name*; with the prefix ``--`` as the ``pytest-trt`` commands do."""
    return prefix + _WORDS.get(name, name).replace("_", "-")


@dataclass(frozen=True)
class Option:
    """One declared option. ``parse`` turns text into the value and raises ValueError with what it wants."""

    name: str
    parse: Callable[[str], Any]
    default: Any
    metavar: str
    help: str
    group: str

    @property
    def flag(self) -> str:
        return flag_of(self.name)

    @property
    def short_flag(self) -> str:
        return flag_of(self.name, "--")

    def flags(self, prefix: str = "--trt-") -> tuple[str, ...]:
        """Every spelling that is taken, the documented one first."""
        return tuple(dict.fromkeys((flag_of(self.name, prefix), prefix + self.name.replace("_", "-"))))

    @property
    def variable(self) -> str:
        return ENV_PREFIX + self.name.upper()

    @property
    def ini(self) -> str:
        return f"trt_{self.name}"

    def read(self, text: object, origin: str) -> Any:
        """Parse *text* from *origin*. Raises UsageError that names both."""
        try:
            return self.parse(str(text))
        except ValueError as error:
            raise UsageError(f"{origin}: cannot use {str(text)!r}: {error}") from error


def option(default: Any, parse: Callable[[str], Any], metavar: str, help: str, *, group: str) -> Any:
    """The field of a dataclass that declares an option."""
    return dataclasses.field(default=default, metadata={"option": (parse, metavar, help, group)})


def as_text(value: Any) -> str:
    """A value from TOML or from Python in the words of the command line: ``[a, b]`` is ``a,b``, ``true`` is ``on``."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, Mapping):
        return ",".join(f"{key}={as_text(entry)}" for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        return ",".join(as_text(entry) for entry in value)
    return str(value)


def as_words(value: Any) -> str:
    """A parsed value, written so that its option reads the same again: pairs are ``NAME=VALUE``."""
    if isinstance(value, tuple):
        pairs = all(isinstance(entry, tuple) for entry in value)
        return ",".join(f"{entry[0]}={entry[1]}" if pairs else str(entry) for entry in value)
    return as_text(value)
