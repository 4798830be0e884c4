"""Search in one's own videos: a folder of files and a checkpoint become a library, a sentence becomes moments.

`VideoLibrary` is all that a program needs. Below it, from the top down: `indexing` (a video file becomes rows),
`moments` (scores by the second become a start and an end), `phrases` (what a query asks for), `vectors` (exact search in
memory), `store` (SQLite). Beside it: `command` is the command line, `server` the web page.
"""

from mmpt_plugin.search.library import VideoLibrary
from mmpt_plugin.search.moments import Hits, Moment

__all__ = ["Hits", "Moment", "VideoLibrary"]
