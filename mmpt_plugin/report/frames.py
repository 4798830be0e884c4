"""Small pictures of videos for a page, where the videos are at hand."""

from __future__ import annotations

import base64
import io
import logging
from functools import lru_cache
from pathlib import Path

from mmpt_plugin.files import UnusableFile
from mmpt_plugin.report.parts import Pictures
from mmpt_plugin.search.store import DATABASE, Store

logger = logging.getLogger(__name__)

WIDTH = 128  # pixels; some 3 kB a picture as JPEG
QUALITY = 70


def pictures_from(place: Path) -> Pictures:
    """Pictures from a library of mmpt-search, or from a folder of videos.

    Raises:
        NotADirectoryError: if there is no such folder.
    """
    if (place / DATABASE).is_file():
        return LibraryPictures(place)
    return VideoFolder(place)


class LibraryPictures:
    """The pictures that a library of mmpt-search keeps of its videos; those it does not have are None.

    Args:
        folder: the library.
    """

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder)
        self._numbers = {video.id: video.number for video in self.store.videos()}
        self._numbers |= {Path(name).stem: number for name, number in self._numbers.items()}

    def __call__(self, video_id: str, second: float) -> str | None:
        """The kept picture nearest to `second` as a data URI, or None."""
        number = self._numbers.get(video_id, self._numbers.get(Path(video_id).stem))
        picture = self.store.picture(number, second) if number is not None else b""
        return data_uri(picture) if picture else None


class VideoFolder:
    """Frames of the videos in a folder: `<id>.<any ending>`, or a file named as the id itself.

    A video that is missing or cannot be decoded has no picture; the first few are named in the log.

    Args:
        folder: with the video files, not in further folders.

    Raises:
        NotADirectoryError: if there is no such folder.
        ModuleNotFoundError: without PyAV, which decodes.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise NotADirectoryError(
                f"task.videos={folder}: no such folder; it must hold the videos as <video id>.<ending>"
            )
        import av  # noqa: F401 (asked for here, so that its absence is known before an evaluation runs)

        self.folder = folder
        files = sorted(file for file in folder.iterdir() if file.is_file())
        self._files = {file.stem: file for file in files} | {file.name: file for file in files}
        self._silent: set[str] = set()
        self._frame = lru_cache(maxsize=4096)(self._decode)

    def __call__(self, video_id: str, second: float) -> str | None:
        """The frame at `second` (the last one of a shorter video) as a data URI, or None."""
        return self._frame(video_id, float(second))

    def _decode(self, video_id: str, second: float) -> str | None:
        import av

        from mmpt_plugin.features.video import open_container

        file = self._files.get(video_id)
        if file is None:
            return self._without(video_id, f"no file of that name in {self.folder}")
        try:
            with open_container(file) as container:
                stream = container.streams.video[0]
                start = (container.start_time or 0) / av.time_base
                container.seek(int((start + second) * av.time_base))
                image = None
                for frame in container.decode(stream):
                    image = frame
                    if frame.time is None or frame.time - start >= second:
                        break
                if image is None:
                    return self._without(video_id, "no frame can be decoded")
                picture = image.to_image()
        except (av.error.FFmpegError, UnusableFile, IndexError, OSError) as error:
            return self._without(video_id, str(error) or "no video stream")
        picture.thumbnail((WIDTH, WIDTH))
        jpeg = io.BytesIO()
        picture.save(jpeg, "JPEG", quality=QUALITY)
        return data_uri(jpeg.getvalue())

    def _without(self, video_id: str, reason: str) -> str | None:
        if video_id not in self._silent and len(self._silent) < 5:
            logger.warning(f"no picture of video {video_id}: {reason}")
        self._silent.add(video_id)
        return None


def data_uri(jpeg: bytes) -> str:
    """A JPEG file as the address of a picture that lies in the page itself."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
