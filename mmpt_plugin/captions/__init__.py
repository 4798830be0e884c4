"""Captions of videos as people have them: subtitles, recognisers' output, tables, HowTo100M's file.

`read_transcript(path)` gives the clean captions of one video. `read_captions(path)` goes through any caption file, whose
format is told by its content, and yields what it says of each video. `collect` finds caption files in folders and tells
which video each is of.
"""

from mmpt_plugin.captions.collection import collect
from mmpt_plugin.captions.formats import read_captions, read_transcript
from mmpt_plugin.captions.tidying import Tidying, tidy
from mmpt_plugin.captions.transcript import Left, TimedText, Transcript

__all__ = ["Left", "Tidying", "TimedText", "Transcript", "collect", "read_captions", "read_transcript", "tidy"]
