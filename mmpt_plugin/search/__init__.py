"""Search in one's own videos: a folder of files and a checkpoint become a library, a sentence becomes moments.

`VideoLibrary` is all that a program needs. Below it, from the top down: `indexing` (a video file becomes rows),
`seconds` (what a query scores near its hits), `moments` (scores by the second become a start and an end), `phrases` (what
a query asks for), `engines` (vectors elsewhere), `vectors` (exact search in memory), `store` (SQLite). Beside it: `command`
is the command line, `server` the web page.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mmpt_plugin.extras import naming_extras

if TYPE_CHECKING:
    from mmpt_plugin.search.library import VideoLibrary
    from mmpt_plugin.search.moments import Hits, Moment

__all__ = ["Hits", "Moment", "VideoLibrary"]


def __getattr__(name: str) -> Any:
    """Import the library on first use: `mmpt-search --help` does not wait for it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with naming_extras("search", "a library of videos"):
        return getattr(importlib.import_module("mmpt_plugin.search.library"), name)
