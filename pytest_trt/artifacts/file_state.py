"""What a file system says of a file without reading it: enough to know later that nobody wrote to it since.

A changed file has another inode change time, which no program can set; copying a file or putting another in its place
changes the inode as well. That holds where the kernel keeps these times itself. Network and user-space file systems
may show them late, round them, or make them up; there, and on systems other than Linux, nothing is concluded.
"""

from __future__ import annotations

import functools
import os
import re
import sys
from pathlib import Path
from typing import Final, NamedTuple

__all__ = ["FileState", "keeps_change_times"]

# The coarsest clock by which a local file system stamps its files, and as much again.
SETTLED_NS: Final = 2 * 10**9
_MOUNTS = Path("/proc/self/mountinfo")
_LOCAL: Final = frozenset(
    {"bcachefs", "btrfs", "ext2", "ext3", "ext4", "f2fs", "jfs", "overlay", "ramfs", "reiserfs", "tmpfs", "xfs", "zfs"}
)


class FileState(NamedTuple):
    """Size in bytes, times in ns since the epoch, inode number, device number."""

    size: int
    modified_ns: int
    changed_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, found: os.stat_result) -> FileState:
        return cls(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)

    def settled(self, now_ns: int) -> bool:
        """Whether a write after *now_ns* (since the epoch) is sure to give the file another state.

        A write within the clock's granularity of the last one gives the same times: of a file that was changed that
        shortly before it was looked at, an unchanged state says nothing.
        """
        return now_ns - self.changed_ns >= SETTLED_NS


@functools.lru_cache(maxsize=64)
def keeps_change_times(folder: Path) -> bool:
    """Whether *folder*, which must exist, lies on a file system that is known to keep change times."""
    if sys.platform != "linux":
        return False
    try:
        place, mounts = folder.resolve(strict=True), _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return False
    kind, depth = "", -1
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        point = Path(re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), left.split(" ")[4]))
        # Of two mounts on one point the later one hides the earlier one.
        if place.is_relative_to(point) and len(point.parts) >= depth:
            kind, depth = right.split(" ")[0], len(point.parts)
    return kind in _LOCAL
