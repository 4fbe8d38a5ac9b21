"""How plots look on the site's dark pages; docs/images has NAME-dark.png beside NAME.png for these."""

from __future__ import annotations

from typing import Any

PAPER, INK = "#1e2129", "#d5d8e2"  # the ground and the text there
DARK: dict[str, Any] = {
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), PAPER),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
}
"""Matplotlib's settings: ``with matplotlib.rc_context(DARK)``."""
