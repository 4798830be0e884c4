"""What a video id may be: a line of a list, a file's name and a key of JSON at once."""

from __future__ import annotations


def id_problem(video_id: object) -> str | None:
    """Why something cannot be a video id; None if it can."""
    if not isinstance(video_id, str):
        return f"is no text but {type(video_id).__name__}"
    if not video_id:
        return "is empty"
    if video_id != video_id.strip():
        return "has blanks around it"
    if len(video_id.splitlines()) > 1 or "\0" in video_id:
        return "has a line break or a zero in it"
    try:
        video_id.encode()
    except UnicodeEncodeError:
        return "has half of a surrogate pair in it"
    return None
