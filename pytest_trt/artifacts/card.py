"""The card of an entry: ``key.json``, which says what the entry is made of and what its files must be.

The card makes damage visible: it carries the digest of each file and of itself. It is *not* a signature. Who can
write into the cache can write a card that fits, so a cache folder deserves the trust of the code that fills it.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from pytest_trt.artifacts.contents import Contents
from pytest_trt.artifacts.file_state import FileState
from pytest_trt.artifacts.key import KEY_SCHEMA, Key
from pytest_trt.artifacts.stamps import STAMP_NAME, STAMPED_FROM_BYTES, Stamps
from pytest_trt.artifacts.store import CARD_NAME, Meta, Payload
from pytest_trt.errors import ArtifactError, CorruptEntryError

__all__ = ["Card", "load_entry", "read_card"]

CARD_FORMAT: Final = 1
CARD_LIMIT_BYTES: Final = 64 * 10**6  # far above any real card: a damaged size must not fill the memory


@dataclass(frozen=True)
class FileFacts:
    """What one file of an entry must be."""

    size_bytes: int
    sha256: str


@dataclass(frozen=True)
class Card:
    """One entry, described. ``schema`` is the KEY_SCHEMA under which ``digest`` was made."""

    kind: str
    digest: str
    schema: int
    ingredients: Mapping[str, Any]
    files: Mapping[str, FileFacts]
    meta: Meta

    @classmethod
    def of(cls, key: Key, files: Payload, label: str) -> Card:
        facts = {name: FileFacts(len(data), hashlib.sha256(data).hexdigest()) for name, data in files.items()}
        return cls(key.kind, key.digest, KEY_SCHEMA, key.ingredients, facts, Meta.now(files, label))

    def encode(self) -> bytes:
        """The bytes of ``key.json``: sorted, indented JSON with the digest of all the rest in ``seal``."""
        document = {
            "format": CARD_FORMAT,
            "kind": self.kind,
            "digest": self.digest,
            "schema": self.schema,
            "label": self.meta.label,
            "created": self.meta.created,
            "ingredients": self.ingredients,
            "files": {name: {"bytes": facts.size_bytes, "sha256": facts.sha256} for name, facts in self.files.items()},
        }
        return _json({**document, "seal": hashlib.sha256(_json(document)).hexdigest()})

    @classmethod
    def decode(cls, raw: bytes) -> Card:
        """Read ``key.json``. Raises CorruptEntryError unless each byte is as ``encode`` wrote it."""
        try:
            document = json.loads(raw.decode("utf-8"))
            rest = {name: value for name, value in document.items() if name != "seal"}
            sealed = raw == _json({**rest, "seal": hashlib.sha256(_json(rest)).hexdigest()})
        except (ValueError, AttributeError, RecursionError) as error:
            raise CorruptEntryError(f"{CARD_NAME} is not readable as JSON") from error
        if not sealed:
            raise CorruptEntryError(f"{CARD_NAME} does not match its own digest")
        if rest.get("format") != CARD_FORMAT:
            raise CorruptEntryError(f"{CARD_NAME} has format {rest.get('format')!r}, not {CARD_FORMAT}")
        try:
            files = {name: FileFacts(facts["bytes"], facts["sha256"]) for name, facts in rest["files"].items()}
            if not isinstance(rest["ingredients"], dict):
                raise TypeError("ingredients")
            meta = Meta(rest["created"], sum(facts.size_bytes for facts in files.values()), rest["label"])
            return cls(rest["kind"], rest["digest"], rest["schema"], rest["ingredients"], files, meta)
        except (KeyError, TypeError, AttributeError) as error:
            raise CorruptEntryError(f"{CARD_NAME} lacks what format {CARD_FORMAT} has") from error

    @property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file, in hexadecimal digits."""
        return {name: facts.sha256 for name, facts in self.files.items()}

    def check_key(self, kind: str, digest: str) -> None:
        """Raise CorruptEntryError unless this card belongs to an entry of that kind and digest."""
        if (self.kind, self.digest) != (kind, digest):
            raise CorruptEntryError(f"{CARD_NAME} is that of {self.kind} {self.digest[:12]}")
        # Of another schema only the digest is known: such an entry can be listed and evicted, but no key finds it.
        if self.schema == KEY_SCHEMA:
            try:
                made = Key.make(kind, self.ingredients)
            except ArtifactError as error:
                raise CorruptEntryError(f"{CARD_NAME}: {error.message}") from error
            if made.digest != digest:
                raise CorruptEntryError(f"the ingredients in {CARD_NAME} do not give the entry's digest")


def read_card(folder: Path) -> Card:
    """Read the card of the entry in *folder*. Raises CorruptEntryError, and FileNotFoundError without a folder."""
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise CorruptEntryError("it is not a folder of its own but a link or a file")
    try:
        with _open_regular(folder / CARD_NAME, None) as file:
            return Card.decode(file.read())
    except OSError as error:
        raise CorruptEntryError(f"{CARD_NAME} cannot be read: {error.strerror}") from error


def load_entry(folder: Path, kind: str, digest: str, stamps: Stamps | None = None) -> tuple[Card, Contents]:
    """Read and check all files of the entry in *folder*.

    Without *stamps* each file is read and digested; nothing is read twice. With them, large files are mapped into
    memory, and digested unless a stamp vouches for them; *stamps* notes those that were. Raises CorruptEntryError for
    anything that is missing, too much, not as recorded or not readable, and FileNotFoundError if there is no folder.
    """
    card = read_card(folder)
    card.check_key(kind, digest)
    try:
        present = {path.name for path in folder.iterdir()} - {CARD_NAME, STAMP_NAME}
        if missing := sorted(card.files.keys() - present):
            raise CorruptEntryError(f"{', '.join(missing)} is missing")
        if extra := sorted(present - card.files.keys()):
            raise CorruptEntryError(f"it holds {', '.join(extra)}, which nobody recorded")
        files = {name: _content(folder / name, facts, stamps) for name, facts in card.files.items()}
    except OSError as error:
        raise CorruptEntryError(f"it cannot be read: {error.strerror}") from error
    return card, Contents(files)


def _content(path: Path, facts: FileFacts, stamps: Stamps | None) -> bytes | memoryview:
    with _open_regular(path, facts.size_bytes) as file:
        if stamps is None or facts.size_bytes < STAMPED_FROM_BYTES:
            data = file.read()
            _check(path, data, facts)
            return data
        state = FileState.of(os.fstat(file.fileno()))
        try:
            mapped = memoryview(mmap.mmap(file.fileno(), facts.size_bytes, access=mmap.ACCESS_READ))
        except ValueError as error:
            raise CorruptEntryError(f"{path.name} became shorter while it was read") from error
        if not stamps.vouch(path.name, state, facts.sha256):
            _check(path, mapped, facts)
            stamps.note(path.name, state, facts.sha256)
        return mapped


def _check(path: Path, data: bytes | memoryview, facts: FileFacts) -> None:
    if hashlib.sha256(data).hexdigest() != facts.sha256:
        raise CorruptEntryError(f"{path.name} does not match its recorded digest")


def _open_regular(path: Path, size_bytes: int | None) -> BinaryIO:
    """Open a regular file that is no link; *size_bytes* is what it must be, None for a card."""
    # O_NOFOLLOW: should a link take the file's place after the check, opening it fails.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    if not stat.S_ISREG(path.lstat().st_mode):
        raise CorruptEntryError(f"{path.name} is not a regular file")
    file = os.fdopen(os.open(path, flags), "rb")
    found, wrong = os.fstat(file.fileno()).st_size, ""
    if size_bytes is None and found > CARD_LIMIT_BYTES:
        wrong = f"{path.name} has {found} bytes"
    if size_bytes is not None and found != size_bytes:
        wrong = f"{path.name} has {found} bytes, {size_bytes} were recorded"
    if wrong:
        file.close()
        raise CorruptEntryError(wrong)
    return file


def _json(document: Mapping[str, Any]) -> bytes:
    return (json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8")
