"""The files of an entry as one mapping, large ones left on the disk until somebody wants their bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

__all__ = ["Contents"]


class Contents(Mapping[str, bytes]):
    """File name -> bytes. A file that was mapped into memory is copied when it is looked up, and by ``view`` never.

    A mapped file stays readable after its entry was evicted: its last user frees it.
    """

    def __init__(self, files: Mapping[str, bytes | memoryview]) -> None:
        self._files = dict(files)

    def __getitem__(self, name: str) -> bytes:
        found = self._files[name]
        return found if isinstance(found, bytes) else bytes(found)

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def view(self, name: str) -> bytes | memoryview:
        return self._files[name]
