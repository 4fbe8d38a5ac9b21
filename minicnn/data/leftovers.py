"""What systems and tools leave in people's folders: never a class, never an image."""

from __future__ import annotations

FOLDERS = frozenset(
    {
        "__macosx", ".fseventsd", ".spotlight-v100", ".trashes", ".documentrevisions-v100",
        ".temporaryitems", ".appledouble", "network trash folder", "temporary items",  # macOS
        "$recycle.bin", "system volume information",  # Windows
        "lost+found", ".trash", ".trash-1000", ".thumbnails", ".xvpics", ".cache",  # Linux
        "@eadir", "#recycle", "#snapshot", "@tmp", ".@__thumb", ".snapshot",  # network storage
        ".git", ".svn", ".hg", ".idea", ".vscode",  # version control, editors
        ".ipynb_checkpoints", "__pycache__", ".pytest_cache", ".venv", ".dvc", ".dropbox.cache",  # tools
    }
)  # fmt: skip
"""Names of folders, in small letters."""

FILES = frozenset(
    {
        ".ds_store", ".localized", "icon\r", ".apdisk", ".volumeicon.icns",  # macOS
        "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini",  # Windows
        ".directory", ".nomedia", ".picasa.ini", "picasa.ini", "zbthumbnail.info",  # viewers of images
        ".dropbox", ".gitignore", ".gitattributes", ".gitkeep", ".keep",  # tools
    }
)  # fmt: skip
"""Names of files, in small letters."""

BEGINNINGS = ("._", "~$", ".fuse_hidden", ".nfs", ".syncthing.")
"""How names of further files begin: second halves of macOS's files, locks, deleted files that are open."""


def is_leftover(name: str) -> bool:
    """Whether a folder or file of this name was left by a system or a tool."""
    small = name.lower()
    return small in FOLDERS or small in FILES or small.startswith(BEGINNINGS)
