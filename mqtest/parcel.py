"""A cell's folder on its way from the host that ran it: one compressed archive in chunks, unpacked whole or not at all.

Rules: at no time is more than one chunk in memory, at either end; the folder appears under its name by a rename, once
everything is in it. Rows of a ledger that were never used are zero, and cost next to nothing here.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from mqtest.errors import LedgerError

CHUNK_BYTES = 4 * 2**20
_LEVEL = 1
"""of gzip: the host's slot is taken until its cell is packed"""


def packed(folder: Path, archive: Path) -> Iterator[bytes]:
    """The chunks of the archive of `folder`; it is written to `archive` first, and removed in the end."""
    try:
        with tarfile.open(archive, "w:gz", compresslevel=_LEVEL) as tar:
            tar.add(folder, arcname=".")
        with archive.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    finally:
        archive.unlink(missing_ok=True)


def unpack(archive: Path, folder: Path) -> None:
    """Make `folder` of the archive, by way of a folder beside the archive. Raises LedgerError where the archive is not
    whole; nothing is left of it then."""
    beside = archive.with_name(f"{archive.name}.unpacked")
    try:
        with gzip.open(archive) as stream:
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                tar.extractall(beside, filter="data")
            while stream.read(CHUNK_BYTES):  # to the checksum, which stands behind the last file
                pass
        beside.rename(folder)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise LedgerError(f"{folder}: what its host sent is not whole: {error}") from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
