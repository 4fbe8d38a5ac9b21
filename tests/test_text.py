"""Names from disk: what is shown of them, when two are the same, and how shares are written."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess

import pytest

from minicnn.text import (
    certainty,
    normalized,
    one_line,
    percent,
    printable,
    printable_lines,
    same_name,
    shell_word,
)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("a\x1b[31mred\x1b[0m", r"a\x1b[31mred\x1b[0m"),
        ("tab\there\nline\r", r"tab\x09here\x0aline\x0d"),
        ("\x9b31m", r"\x9b31m"),
        ("\x00\x07\x7f", r"\x00\x07\x7f"),
        ("photo\u202egnp.exe", r"photo\u202egnp.exe"),
        ("\u2066a\u2069\u200f\u061c", r"\u2066a\u2069\u200f\u061c"),
        ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
        ("zero\u200bwidth\ufeff\u00ad", r"zero\u200bwidth\ufeff\xad"),
        ("\U000e0041", r"\U000e0041"),
        (os.fsdecode(b"caf\xe9"), r"caf\udce9"),
    ],
)
def test_what_is_not_for_reading_is_escaped(name: str, shown: str) -> None:
    assert printable(name) == shown
    assert printable(shown) == shown


@pytest.mark.parametrize(
    "name",
    ["T-shirt/top", "$1 to $5", "[red]", ":cat:", "图片", "写真", "cafe\u0301", "שלום", "می\u200cخواهم",
     "👨\u200d👩\u200d👧", "❤\ufe0f", "全\u3000角", "a\u00a0b", "C:\\new", "\u06dd1", "\ue000"],
)  # fmt: skip
def test_ordinary_text_stays(name: str) -> None:
    assert printable(name) == name


def test_lines_stay_lines_or_become_one() -> None:
    assert printable_lines("a\n  b\x1b") == "a\n  b\\x1b"
    assert one_line("a:\n  b\x1bc  d\n") == "a: b\\x1bc  d"


@pytest.mark.parametrize(
    "name",
    ["plain", "a b", "it's", "$HOME", "图片", "a\nb", "\x1b[31m1", "a'\\\x07f", os.fsdecode(b"\xe9a")],
)
def test_a_shell_reads_the_word_back(name: str) -> None:
    word = shell_word(name)
    assert printable(word) == word
    if printable(name) == name:
        assert shlex.split(word) == [name]
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash to read $'...'")
    done = subprocess.run([bash, "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert os.fsdecode(done.stdout) == name


def test_what_looks_the_same_is_the_same_name() -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert composed != decomposed
    assert same_name(composed, decomposed)
    assert normalized(decomposed) == composed
    assert not same_name("cafe", composed)
    assert not same_name("Cat", "cat")
    assert same_name(os.fsdecode(b"\xe9"), os.fsdecode(b"\xe9"))


@pytest.mark.parametrize(
    ("share", "digits", "shown"),
    [(1, 1, "100.0 %"), (0.9996, 1, ">99.9 %"), (1 - 1e-16, 2, ">99.99 %"), (0.9994, 1, "99.9 %"),
     (0.5, 1, "50.0 %"), (0.0004, 1, "<0.1 %"), (0.0006, 1, "0.1 %"), (0, 1, "0.0 %"), (0.5, 0, "50 %"),
     (0.999, 0, ">99 %"), (0.99999, 2, ">99.99 %"), (1, 2, "100.00 %"), (1e-5, 2, "<0.01 %")],
)  # fmt: skip
def test_per_cent_are_all_only_where_nothing_is_missing(share: float, digits: int, shown: str) -> None:
    assert percent(share, digits) == shown


def test_a_probability_is_never_certain() -> None:
    assert certainty(1.0) == ">99.9 %"
    assert certainty(0.0) == "<0.1 %"
    assert certainty(0.625) == "62.5 %"
