"""Names from files and folders as text: what may be shown of them, and when two of them are the same.

A stranger chose these names.  They may hold control characters that drive a terminal, or bytes that are no
text at all; nothing shows them before `printable` has seen them.
"""

from __future__ import annotations

import os
import shlex
import unicodedata

_JOINERS = "\u200c\u200d"
"""Invisible, but Persian, Hindi and many emoji are written with them."""
_NUMBER_SIGNS = "\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2"
"""Arabic and Syriac marks that Unicode calls format characters although they are seen."""


def printable(text: str) -> str:
    """The text with each character that is not for reading as its escape, such as ``\\x1b``.

    Escaped are control characters, line breaks, invisible format characters (those that turn the direction
    of writing among them), and the surrogates by which Python stands for bytes that are not UTF-8.  All
    else stays as it is, so that cleaning twice changes nothing.
    """
    return "".join(character if _is_for_reading(character) else escape(character) for character in text)


def printable_lines(text: str) -> str:
    """`printable`, but line feeds stay: for text that is our own but for the names in it."""
    return "\n".join(map(printable, text.split("\n")))


def one_line(text: str) -> str:
    """`printable`, with a space between what were lines: for messages."""
    return printable(" ".join(line.strip() for line in text.strip().split("\n")))


def escape(character: str) -> str:
    """A character as Python's source would name it: ``\\x1b``, ``\\u202e``, ``\\U000e0041``."""
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def shell_word(text: str) -> str:
    """A path or argument as one word that a shell can be given.

    As `shlex.quote` does it; a word that holds what is not printable is in the form ``$'...'``, which bash
    and zsh read, with the bytes of these characters as escapes.
    """
    if printable(text) == text:
        return shlex.quote(text)
    return f"$'{''.join(map(_shell_escape, text))}'"


def normalized(name: str) -> str:
    """The name in Unicode's form NFC: macOS spells é as e and an accent, others as one character."""
    return unicodedata.normalize("NFC", name)


def same_name(one: str, other: str) -> bool:
    """Whether two names are the same in Unicode's sense, in which they look the same on a screen."""
    return normalized(one) == normalized(other)


def percent(share: float, digits: int = 1) -> str:
    """A share from 0 to 1 in per cent; "100" only where it is all, and "0" only where it is nothing.

    0.9996 is ">99.9 %" and 0.0001 "<0.1 %" with 1 digit.
    """
    least = 10.0**-digits
    shown = f"{100 * share:.{digits}f}"
    if share < 1 and float(shown) >= 100:
        return f">{100 - least:.{digits}f} %"
    if share > 0 and float(shown) <= 0:
        return f"<{least:.{digits}f} %"
    return f"{shown} %"


def certainty(probability: float) -> str:
    """A probability of `metrics.softmax` in per cent.

    It is never "100.0 %" or "0.0 %": a softmax reaches neither 1 nor 0, but its rounding to 64 bits does.
    """
    return percent(min(max(probability, 1e-9), 1 - 1e-9))


def _is_for_reading(character: str) -> bool:
    if character in _JOINERS or character in _NUMBER_SIGNS:
        return True
    return unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _shell_escape(character: str) -> str:
    if character in "\\'":
        return f"\\{character}"
    if _is_for_reading(character):
        return character
    return "".join(f"\\x{byte:02x}" for byte in os.fsencode(character))
