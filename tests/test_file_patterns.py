"""Which files a pattern names, and the folder that all are below."""

from __future__ import annotations

from pathlib import Path

import pytest

from minicnn.data import DataError
from minicnn.data.classes import common_root, files_of


def test_patterns(tmp_path: Path) -> None:
    for name in ("a-08", "a-09", "a-10", "b", "{b}"):
        (tmp_path / f"{name}.tar").write_bytes(b"")
    named = lambda pattern: [path.stem for path in files_of(f"{tmp_path}/{pattern}")]  # noqa: E731
    assert named("a-{08..10}.tar") == ["a-08", "a-09", "a-10"]
    assert named("{a-*,b}.tar") == ["a-08", "a-09", "a-10", "b"]
    assert named("{b}.tar") == ["{b}"]
    for pattern, words in (
        ("a-{08..11}.tar", r"a-11\.tar: expected a file, got none"),
        ("c*.tar", r"expected a file, got none of that name"),
        ("{0..99999999}{0..99999999}.tar", r"expected a file, got none"),
    ):
        with pytest.raises(DataError, match=words):
            named(pattern)


def test_files_without_a_common_folder_end_the_search() -> None:
    assert common_root([Path("/some/where/a.tar"), Path("b.tar")]) == Path("/")
    assert common_root([Path("/some/where/a.tar"), Path("/some/b.tar")]) == Path("/some")
