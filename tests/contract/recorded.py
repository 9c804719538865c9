"""Classes and enums that have exactly the members, and take exactly the arguments, that were recorded."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Parameter:
    name: str
    type: str
    optional: bool


def parse(signature: str) -> list[list[Parameter]]:
    """The overloads of a recorded signature; without ``self``."""
    return [_parameters(overload) for overload in signature.split(" || ")]


def _parameters(text: str) -> list[Parameter]:
    inside = text[text.index("(") + 1 : text.rindex(") ->")]
    found = []
    for part in _split(inside):
        name, _, rest = part.partition(":")
        kind, equals, _default = rest.partition(" = ")
        if name.strip() != "self":
            found.append(Parameter(name.strip(), kind.strip(), bool(equals)))
    return found


def _split(text: str) -> list[str]:
    parts, depth, current = [], 0, ""
    for letter in text:
        depth += letter in "[(<"
        depth -= letter in "])>"
        if letter == "," and depth == 0:
            parts.append(current)
            current = ""
        else:
            current += letter
    return [part for part in [*parts, current] if part.strip()]


def accepts(module: Any, kind: str, value: object) -> bool:
    """Whether the binding would convert *value* to the recorded type *kind*."""
    kind = kind.split("::")[-1]
    if kind in ("int", "SupportsInt"):
        return hasattr(value, "__index__") and not isinstance(value, bool)
    if kind in ("float", "SupportsFloat"):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind in ("str", "bool", "tuple", "list"):
        return isinstance(value, {"str": str, "bool": bool, "tuple": tuple, "list": list}[kind])
    if kind in ("buffer", "Buffer"):
        return isinstance(value, (bytes, bytearray, memoryview))
    if kind == "Dims":
        return isinstance(value, (tuple, list)) and all(accepts(module, "int", size) for size in value)
    if re.fullmatch(r"(List|list|Sequence)\[.*\]", kind):
        return isinstance(value, (list, tuple))
    if kind in ("capsule", "CapsuleType", "object", "slice"):
        return True
    owner: Any = module
    for part in kind.split("."):
        owner = getattr(owner, part, None)
    if isinstance(owner, type):
        return isinstance(value, owner)
    raise AssertionError(f"the double cannot judge arguments of type {kind!r}")


def check_call(module: Any, where: str, signature: str, args: tuple, kwargs: dict) -> list:
    """Return the arguments in order, or raise TypeError as a binding does when no overload takes them."""
    for parameters in parse(signature):
        names = [p.name for p in parameters]
        if len(args) > len(names) or any(name not in names[len(args) :] for name in kwargs):
            continue
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        if any(p.name not in given and not p.optional for p in parameters):
            continue
        if all(
            accepts(module, p.type, given[p.name]) for p in parameters if p.name in given and given[p.name] is not None
        ):
            return [given[p.name] for p in parameters if p.name in given]
    raise TypeError(f"{where}(): incompatible function arguments {args} {kwargs}; recorded: {signature}")


def make_enum(name: str, values: dict[str, int]) -> type:
    """An enum of the binding's kind: named members with their real integers, not integers themselves."""

    class Member:
        def __init__(self, member: str, value: int) -> None:
            self.name, self.value = member, value

        def __int__(self) -> int:
            return self.value

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Member) and self.value == other.value

        def __hash__(self) -> int:
            return hash(self.value)

        def __repr__(self) -> str:
            return f"<{name}.{self.name}: {self.value}>"

    Member.__name__ = Member.__qualname__ = name
    Member.__members__ = {member: Member(member, value) for member, value in values.items()}
    for member, value in Member.__members__.items():
        setattr(Member, member, value)
    return Member


def make_class(module: Any, name: str, recording: dict[str, str], behaviour: type, *, open_to_python: bool) -> type:
    """A class with the members of *recording*, which do what *behaviour* does.

    Reading or setting another member raises AttributeError, as on the real class. ``open_to_python`` classes
    are made to be derived from, so they take any attribute.
    """
    own = ("__dict__", "__weakref__", "__module__", "__doc__")
    kinds = [kind for kind in reversed(behaviour.__mro__) if kind not in (object, bytes, tuple)]
    space: dict[str, Any] = {
        k: v for kind in kinds for k, v in vars(kind).items() if k.startswith("_") and k not in own
    }
    if "__init__" in space and "(self" in recording["__init__"]:
        space["__init__"] = _method(module, name, "__init__", recording["__init__"], behaviour)
    for member, text in recording.items():
        if text.startswith("property"):
            space[member] = _property(name, member, text, behaviour)
        elif text.startswith("static "):
            space[member] = staticmethod(_static(module, name, member, text, behaviour))
        elif "(self" in text and not member.startswith("__"):
            space[member] = _method(module, name, member, text, behaviour)
    rw = {member for member, text in recording.items() if text.startswith("property(rw)")}

    def __setattr__(self: object, attribute: str, value: object) -> None:
        if not open_to_python and not attribute.startswith("_") and attribute not in rw:
            raise AttributeError(f"{name!r} has no settable attribute {attribute!r}")
        object.__setattr__(self, attribute, value)

    space["__setattr__"] = __setattr__
    bases = tuple(base for base in (bytes, tuple) if issubclass(behaviour, base))
    return type(name, bases, space)


def _method(module: Any, owner: str, member: str, text: str, behaviour: type) -> Any:
    function = getattr(behaviour, member, None)

    def call(self: object, *args: object, **kwargs: object) -> object:
        ordered = check_call(module, f"{owner}.{member}", text, args, kwargs)
        if function is None:
            raise AssertionError(f"the double has no behaviour for {owner}.{member}")
        return function(self, *ordered)

    return call


def _static(module: Any, owner: str, member: str, text: str, behaviour: type) -> Any:
    def call(*args: object, **kwargs: object) -> object:
        ordered = check_call(module, f"{owner}.{member}", text, args, kwargs)
        return getattr(behaviour, member)(module, *ordered)

    return call


def _property(owner: str, member: str, text: str, behaviour: type) -> property:
    def read(self: Any) -> object:
        if member in self.__dict__.get("_set", {}):
            return self._set[member]
        value = getattr(behaviour, member, None)
        if value is None and not hasattr(behaviour, member):
            raise AssertionError(f"the double has no behaviour for {owner}.{member}")
        return value.fget(self) if isinstance(value, property) else value

    def write(self: Any, value: object) -> None:
        self.__dict__.setdefault("_set", {})[member] = value

    return property(read, write if text.startswith("property(rw)") else None)
