"""Keeps the columns of lists of arguments, results and errors in the API reference."""

from __future__ import annotations

import re
from typing import Any

from griffe import Extension

_LIST = re.compile(r"^(Args|Returns|Raises|Torch|Note|Source)s?:.*(\n(?!\n).*)*", re.M)


class KeepColumns(Extension):
    """Shows each such list in a docstring as it is in the source."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = _LIST.sub(_fenced, obj.docstring.value)


def _fenced(match: re.Match[str]) -> str:
    return f"```text\n{match[0].replace('``', '')}\n```"
