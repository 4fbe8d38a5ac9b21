"""The console of all commands: text is text there, never markup, and no control character gets through."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from minicnn.text import printable_lines


class PlainConsole(Console):
    """A rich console that shows strings as they are, but for what `printable_lines` escapes.

    That holds for what is printed, and for the cells and titles of tables.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """As `rich.console.Console.render_str`, through which rich turns each string into what it draws."""
        return super().render_str(printable_lines(text), **options)
