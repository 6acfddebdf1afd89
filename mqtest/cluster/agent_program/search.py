"""Which messages lie in the files of a node, whatever its broker makes of these files.

`mqtest.body` comes along with the program (agent.py), so that the format of a message is known in one place.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator, Sequence

from mqtest.body import Header, find

from .proofs import GoneError, Target, filesystem, hold

CHUNK_BYTES = 4 << 20

Found = dict[str, list[list[int]]]
"""producer -> first and last sequence number of each run, in order"""


def search(targets: Sequence[Target], run: int, size: int) -> dict[str, Found]:
    """What whole messages of this run and size each target's disk holds; without targets that end meanwhile."""
    found = {}
    for target in targets:
        with contextlib.suppress(GoneError), hold(target) as pidfd, filesystem(target, pidfd) as disk:
            found[target.name] = in_folder(disk, run, size)
    return found


def in_folder(folder: int, run: int, size: int) -> Found:
    """The same, of everything below an open folder."""
    seqs: dict[int, set[int]] = {}
    for _path, _folders, names, fd in os.fwalk(dir_fd=folder):
        for name in names:
            for header in _in_file(name, fd, run, size):
                seqs.setdefault(header.producer, set()).add(header.seq)
    return {str(producer): runs(sorted(seqs[producer])) for producer in sorted(seqs)}


def runs(ordered: Sequence[int]) -> list[list[int]]:
    """`[1, 2, 3, 7]` → `[[1, 3], [7, 7]]`."""
    found: list[list[int]] = []
    for number in ordered:
        if found and number == found[-1][1] + 1:
            found[-1][1] = number
        else:
            found.append([number, number])
    return found


def _in_file(name: str, folder: int, run: int, size: int) -> Iterator[Header]:
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    except OSError:  # a link, a socket, or gone meanwhile
        return
    try:
        if stat.S_ISREG(os.fstat(file).st_mode):
            for piece in _pieces(file, size):
                yield from find(piece, run, size)
    finally:
        os.close(file)


def _pieces(file: int, size: int) -> Iterator[bytes]:
    """The file in pieces without its holes, each with the end of the one before, so that no message is cut in two."""
    at, rest = 0, b""
    while True:
        try:
            data_at = os.lseek(file, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:  # nothing but a hole is left
                raise
            return
        read = os.pread(file, CHUNK_BYTES, data_at)
        if not read:
            return
        piece = (rest if data_at == at else b"") + read
        yield piece
        at, rest = data_at + len(read), piece[-(size - 1) :]
