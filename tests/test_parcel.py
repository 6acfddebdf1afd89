"""A folder packed, sent in chunks and unpacked: the same, or nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from mqtest import parcel
from mqtest.errors import LedgerError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "made"
    (made / "ledger" / "sends.0").mkdir(parents=True)
    (made / "logs").mkdir()
    (made / "cell.json").write_text("{}\n")
    (made / "ledger" / "sends.0" / "sent_ns.npy").write_bytes(bytes(range(256)) * 64 + bytes(1 << 20))
    return made


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def arrived(tmp_path: Path, chunks: list[bytes]) -> Path:
    archive = tmp_path / "arriving" / "x"
    archive.parent.mkdir(exist_ok=True)
    archive.write_bytes(b"".join(chunks))
    return archive


def test_what_arrives_is_what_was_sent(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parcel, "CHUNK_BYTES", 1000)
    chunks = list(parcel.packed(folder, tmp_path / "archive"))
    assert {len(chunk) for chunk in chunks[:-1]} == {1000}
    assert 0 < len(chunks[-1]) <= 1000
    assert sum(map(len, chunks)) < 20_000, "rows that were never used cost next to nothing"
    assert not (tmp_path / "archive").exists()
    archive = arrived(tmp_path, chunks)
    parcel.unpack(archive, tmp_path / "there")
    assert contents(tmp_path / "there") == contents(folder)
    assert list(archive.parent.iterdir()) == [archive]


@pytest.mark.parametrize("missing", [1, 7, 8, 9, 100, 0.1, 0.5, 0.9, 1.0])
def test_a_part_of_it_makes_nothing(folder: Path, tmp_path: Path, missing: float) -> None:
    whole = b"".join(parcel.packed(folder, tmp_path / "archive"))
    kept = len(whole) - (missing if isinstance(missing, int) else int(missing * len(whole)))
    archive = arrived(tmp_path, [whole[:kept]])
    with pytest.raises(LedgerError, match="there: what its host sent is not whole"):
        parcel.unpack(archive, tmp_path / "there")
    assert not (tmp_path / "there").exists()
    assert list(archive.parent.iterdir()) == [archive]


def test_a_flipped_bit_makes_nothing(folder: Path, tmp_path: Path) -> None:
    whole = bytearray(b"".join(parcel.packed(folder, tmp_path / "archive")))
    whole[-6] ^= 1  # of the checksum
    with pytest.raises(LedgerError):
        parcel.unpack(arrived(tmp_path, [bytes(whole)]), tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_nothing_leaves_the_folder(folder: Path, tmp_path: Path) -> None:
    (folder / "out").symlink_to("/etc/passwd")
    archive = arrived(tmp_path, list(parcel.packed(folder, tmp_path / "archive")))
    with pytest.raises(LedgerError):
        parcel.unpack(archive, tmp_path / "there")
    assert not (tmp_path / "there").exists()
