"""Which messages lie in files: literal folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mqtest.body import encode
from mqtest.cluster.agent_program import search

SIZE = 80


def message(seq: int, producer: int = 0, run: int = 7) -> bytes:
    return encode(run, producer, seq, 0, SIZE)


def in_folder(path: Path) -> search.Found:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return search.in_folder(folder, 7, SIZE)
    finally:
        os.close(folder)


def test_of_all_files_below_by_producer_in_runs(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "log").write_bytes(b"head" + message(4) + message(2) + message(3, producer=11))
    (tmp_path / "a" / "log").write_bytes(message(3) + message(9) + message(4) + message(5, run=8))
    (tmp_path / "empty").touch()
    assert in_folder(tmp_path) == {"0": [[2, 4], [9, 9]], "11": [[3, 3]]}
    assert in_folder(tmp_path / "a" / "b") == {"0": [[2, 2], [4, 4]], "11": [[3, 3]]}


@pytest.mark.parametrize("chunk", [1, 79, 80, 81, 200])
def test_no_message_is_cut_in_two(tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "CHUNK_BYTES", chunk)
    (tmp_path / "log").write_bytes(b"xyz" + b"".join(message(seq) for seq in range(9)))
    assert in_folder(tmp_path) == {"0": [[0, 8]]}


def test_holes_are_passed_over(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as file:
        file.seek(1 << 30)
        file.write(message(1))
        file.seek(1 << 40)
        file.write(message(2))
        file.truncate(1 << 42)
    assert in_folder(tmp_path) == {"0": [[1, 2]]}


def test_links_and_pipes_are_no_files_of_the_disk(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "log").write_bytes(message(1))
    (inside / "link").symlink_to(tmp_path / "log")
    (inside / "folder").symlink_to(tmp_path)
    os.mkfifo(inside / "pipe")
    assert in_folder(inside) == {}
