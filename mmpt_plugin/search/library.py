"""A library of videos on disk that is searched by what is shown and by what is said."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from mmpt_plugin.features.manifest import FeatureSettings, check_same_settings
from mmpt_plugin.features.one_video import open_extractor
from mmpt_plugin.files import lock
from mmpt_plugin.files.names import VIDEO_SUFFIXES
from mmpt_plugin.inference import VideoClip
from mmpt_plugin.models.checkpoint import feature_settings, read_checkpoint
from mmpt_plugin.models.similarity import similarity
from mmpt_plugin.search import engines, indexing
from mmpt_plugin.search.engines import Engine, EngineIndex, Qdrant
from mmpt_plugin.search.indexing import Extracted, Extraction, file_sha256
from mmpt_plugin.search.moments import Fused, Hits, Moment, Span, fuse, merge_overlapping, threshold
from mmpt_plugin.search.phrases import Query, match_expression, parse_query
from mmpt_plugin.search.seconds import SecondScores
from mmpt_plugin.search.store import Line, Rows, Store, Video
from mmpt_plugin.search.transcripts import Transcripts, read_lines
from mmpt_plugin.search.vectors import VectorIndex, as_floats

logger = logging.getLogger(__name__)

WINDOW, STRIDE = 16, 8
"""Seconds that the video encoder sees at once, and from one window to the next (docs/search.md says why)."""

WRITER_LOCK = ".writer"
DEFAULT_SAID = 0.3
WINDOWS_PER_HIT = 3
LEAST_WINDOWS = 32
MOST_HITS = 1000
ALIKE = 0.98
"""Cosine, around the library's mean, above which moments of two videos are taken for the same footage."""

Floats = NDArray[np.float32]


@dataclass
class Added:
    """What became of the videos of one `add`.

    Attributes:
        added, changed, unchanged, moved: ids.
        failed: reasons by id; these videos cannot be found, and are tried again by the next `add`.
        vanished: ids of videos of the library whose file is gone; they stay until they are removed.
        transcripts: how many videos have one.
    """

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    vanished: list[str] = field(default_factory=list)
    transcripts: int = 0


@dataclass(frozen=True)
class Task:
    """A file to index anew."""

    video: Video
    transcript: Path | None
    known: bool


class VideoLibrary:
    """Videos, indexed by one checkpoint, in one folder.

    Example:
        >>> library = VideoLibrary.create("library", "checkpoint.pt", network_weights="s3d.pth")  # doctest: +SKIP
        >>> library.add("videos", transcripts="transcripts")  # doctest: +SKIP
        >>> library.search("add the onions", k=5)[0].start  # doctest: +SKIP

    May be used from several threads. One process at a time may write; others read on meanwhile.

    Attributes:
        folder: where it lies.
        store: its database.
    """

    def __init__(
        self, folder: str | Path, device: str = "cpu", clip: VideoClip | None = None, engine: str | None = None
    ) -> None:
        """Use `create` or `open`."""
        self.folder = Path(folder)
        self.store = Store(self.folder)
        self.device = device
        self.width = int(self.store.setting("width"))
        self._clip = clip
        self._index: VectorIndex | EngineIndex = VectorIndex(self.width)
        self._engine = self._open_engine(engine)
        if self._engine is not None:
            self._index = EngineIndex(self._engine, self.width)
        self._seen: dict[int, tuple[int, int]] = {}  # by thread: what its connection had seen when it last looked
        self._known: dict[int, Video] = {}
        self._lock = threading.RLock()
        self._embed_phrase = lru_cache(maxsize=1024)(self._embed_phrase_anew)

    @classmethod
    def create(
        cls,
        folder: str | Path,
        checkpoint: str | Path,
        *,
        bert: str | None = None,
        network: str | None = None,
        precision: str | None = None,
        fps: int | None = None,
        frame_size: int | None = None,
        window: int | None = None,
        stride: int | None = None,
        engine: str | None = None,
        device: str = "cpu",
    ) -> VideoLibrary:
        """Makes an empty library.

        Args:
            folder: made if it does not exist.
            checkpoint: of the model, ours or MMPT's. The library keeps its path and hash and takes no other.
            bert: as for `VideoClip.from_pretrained`.
            network: the feature network with its files, "s3d:FILE" or "hf:FOLDER"; by default the one that the checkpoint
                names, where that is found.
            precision, fps, frame_size: as for extraction; by default as the checkpoint states, or fp32, 30 and 224.
            window, stride: seconds; by default 16 and 8, less where the model takes less.
            engine: address of an engine that shall hold the windows' vectors, such as "qdrant:http://HOST:6333"; by default
                they lie in the library's file and are searched in memory.
            device: where to compute.

        Raises:
            FileExistsError: if the folder holds a library.
            FileNotFoundError, ValueError: if the checkpoint or the network cannot be loaded, or do not belong together.
        """
        if engine is not None:
            engines.check_address(engine)
        clip = VideoClip.from_pretrained(checkpoint, bert, device)
        given = {"precision": precision, "fps": fps, "frame_size": frame_size}
        network, settings = network_settings(clip, checkpoint, network, given, device)
        longest = clip.model.video_encoder.max_seconds
        window = min(window or WINDOW, longest)
        stride = stride or max(1, window // 2)
        if not 0 < stride <= window:
            raise ValueError(f"stride is {stride}; it must lie between 1 and the window of {window} seconds")
        width, collection = clip.model.video_encoder.transformer.config.hidden_size, engines.new_collection()
        if engine is not None:
            Qdrant(engine, collection, width, trusted=True)  # refuses before anything is made here
        Store.create(
            Path(folder),
            {
                "model": describe_file(Path(checkpoint)) | {"bert": bert},
                "network": network,
                "features": settings,
                "width": width,
                "window": window,
                "stride": stride,
                "engine": engine and {"address": engine, "collection": collection},
            },
        ).close()
        return cls(folder, device, clip, engine)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        checkpoint: str | Path | None = None,
        *,
        bert: str | None = None,
        engine: str | None = None,
        device: str = "cpu",
    ) -> VideoLibrary:
        """Opens a library; the model is loaded when it is first needed.

        Args:
            folder: of the library.
            checkpoint: where its checkpoint lies now, if that was moved.
            bert: where its BERT lies now.
            engine: where its engine is now; a key (QDRANT_API_KEY) goes only to an address that is given here.
            device: where to compute.

        Raises:
            FileNotFoundError: if there is no library, or no checkpoint where it was.
            ValueError: if the checkpoint is not the library's, or the library is of a newer version.
            OSError: if the engine does not answer.
        """
        library = cls(folder, device, engine=engine)
        if checkpoint is not None:
            library._check_model(Path(checkpoint))
            library.__dict__["_model_place"] = (Path(checkpoint), bert)
        return library

    def _open_engine(self, address: str | None) -> Engine | None:
        """The engine that holds the vectors; None where the library's own file does."""
        kept = self.store.setting("engine")
        if kept is None:
            if address is not None:
                raise ValueError(
                    f"the library {self.folder} keeps its vectors itself: --engine is chosen when it is made"
                )
            return None
        engine = Qdrant(address or kept["address"], kept["collection"], self.width, trusted=address is not None)
        if len(engine) < self.store.window_count():
            raise ValueError(
                f"the engine {engine.address} has {len(engine)} of the {self.store.window_count()} windows of the library "
                f"{self.folder} (collection {engine.collection}): restore it there, or index anew"
            )
        return engine

    # ------------------------------------------------------------------------------------------------------------ model

    @cached_property
    def _model_place(self) -> tuple[Path, str | None]:
        """Checkpoint and BERT, as they were when the library was made."""
        model = self.store.setting("model")
        path = Path(model["path"])
        self._check_model(path)
        return path, model["bert"]

    def _check_model(self, path: Path) -> None:
        """Refuses another checkpoint than the library's."""
        model = self.store.setting("model")
        if not path.exists():
            raise FileNotFoundError(
                f"the library {self.folder} was made with the checkpoint {path}, which is not there: say where it lies "
                "now with --checkpoint"
            )
        same = str(path.resolve()) == model["path"] and (model["bytes"], model["modified"]) == stamp(path)
        if not same and describe_file(path)["sha256"] != model["sha256"]:
            raise ValueError(
                f"the library {self.folder} was made with another checkpoint ({model['path']}, sha256 "
                f"{model['sha256'][:12]}) than {path}: vectors of two models cannot be compared. Use that one, or make a "
                "new library"
            )

    @property
    def clip(self) -> VideoClip:
        """The model."""
        with self._lock:
            if self._clip is None:
                path, bert = self._model_place
                self._clip = VideoClip.from_pretrained(path, bert, self.device)
            return self._clip

    def _embed_phrase_anew(self, phrase: str) -> Floats:
        with self._lock:  # tokenizers are not made for several threads
            return self.clip.encode_text([phrase])[0].cpu().numpy()

    def embed(self, text: str | Query) -> Floats:
        """The vector of a query, (D,): phrases with + minus those with -.

        Raises:
            ValueError: if the text is no query.
        """
        query = parse_query(text) if isinstance(text, str) else text
        vector = np.zeros(self.width, np.float32)
        for phrase in query.plus:
            vector = vector + self._embed_phrase(phrase)
        for phrase in query.minus:
            vector = vector - self._embed_phrase(phrase)
        return vector

    # ---------------------------------------------------------------------------------------------------------- writing

    def add(
        self,
        videos: str | Path | Iterable[str | Path],
        transcripts: str | Path | Mapping[str, str | Path] | None = None,
        *,
        workers: int = 0,
        wait: float = 0.0,
    ) -> Added:
        """Indexes what is new or has changed. Can be broken off anywhere and run again.

        Args:
            videos: a folder, searched with its subfolders, or files.
            transcripts: a folder of transcripts named like the videos, or {video id or path: file}; by default they are
                looked for beside the videos.
            workers: processes that decode and run the feature network; 0: in this one.
            wait: seconds to wait for another process that writes to the library.

        Raises:
            FileNotFoundError: if a path does not exist, or the folder holds no video.
            LockHeld: if another process is writing; it is named.
            OSError: if the disk is full; what was indexed before is kept.
        """
        files = find_files(videos)
        found = Transcripts(transcripts)
        with self._only_writer(wait):
            if self._engine is not None:
                self._engine.keep_only(self.store.searchable())  # what a killed process left behind goes
            added, tasks = self._plan(files, found)
            extraction = Extraction(
                self.store.setting("network"), tuple(self.store.setting("features").items()), self.device
            )
            if tasks:
                indexing.extractor_of(extraction)  # another network than the library's is refused here
            with logging_redirect_tqdm(), tqdm(total=len(tasks), unit="video", desc="index") as progress:
                for task, outcome in run_tasks(tasks, extraction, workers):
                    self._write(task, outcome, added)
                    progress.update()
            added.transcripts = sum(video.transcript is not None for video in self.store.videos())
        return added

    def remove(self, video_id: str, *, wait: float = 0.0) -> None:
        """Takes a video out of the library; its file is not touched.

        Raises:
            KeyError: if the library has no such video.
        """
        with self._only_writer(wait):
            number = self.video(video_id).number
            self.store.remove(number)
            if self._engine is not None:
                self._engine.remove([number])

    def _only_writer(self, wait: float) -> AbstractContextManager[None]:
        return lock(self.folder / WRITER_LOCK, purpose=f"the library {self.folder}", wait_seconds=wait)

    def _plan(self, files: Mapping[str, Path], transcripts: Transcripts) -> tuple[Added, list[Task]]:
        """Compares files with what is known: by size and time first, then by their content."""
        added = Added()
        known = {video.path: video for video in self.store.videos()}
        vanished = {path: video for path, video in known.items() if not path.exists()}
        taken = {video.id for video in known.values()}
        tasks = []
        for name, path in files.items():
            size, modified = stamp(path)
            old = known.get(path)
            transcript = transcripts.of(old.id if old else name, path)
            if old is not None and old.failure is None:
                same = (old.bytes, old.modified) == (size, modified)
                if not same and old.bytes == size and file_sha256(path) == old.sha256:
                    self.store.touch(old.number, size, modified)
                    same = True
                if same:
                    added.unchanged.append(old.id)
                    self._renew_lines(old, transcript)
                    continue
            elif old is None:
                moved = next((v for v in vanished.values() if v.bytes == size and v.sha256 == file_sha256(path)), None)
                if moved is not None and moved.failure is None:
                    video_id = free_name(name, taken - {moved.id})
                    self.store.move(replace(moved, id=video_id, path=path, modified=modified))
                    del vanished[moved.path]
                    taken = taken - {moved.id} | {video_id}
                    added.moved.append(video_id)
                    continue
            video_id = old.id if old else free_name(name, taken)
            taken.add(video_id)
            number = old.number if old else 0
            tasks.append(Task(Video(video_id, path, size, modified, "", number=number), transcript, old is not None))
        added.vanished = sorted(video.id for video in vanished.values())
        return added, tasks

    def _renew_lines(self, video: Video, transcript: Path | None) -> None:
        """Reads a transcript again if it is another than before."""
        sha256 = file_sha256(transcript) if transcript else None
        if transcript is None or sha256 == video.transcript_sha256:
            return
        try:
            lines = read_lines(transcript)
        except (ValueError, OSError) as error:
            logger.warning("%s", error)
            return
        self.store.put_lines(video.number, str(transcript), sha256, lines)

    def _write(self, task: Task, outcome: Extracted | str, added: Added) -> None:
        """Commits one video, or why there is nothing of it."""
        video = task.video
        if isinstance(outcome, str):
            logger.warning("%s failed: %s", video.id, outcome)
            added.failed[video.id] = outcome
            self._put(replace(video, failure=outcome), None)
            return
        lines: list[Line] = []
        warning = outcome.warning
        if task.transcript is not None:
            try:
                lines = read_lines(task.transcript)
                video = replace(video, transcript=str(task.transcript), transcript_sha256=file_sha256(task.transcript))
            except (ValueError, OSError) as error:
                logger.warning("%s", error)
                warning = "; ".join(filter(None, [warning, str(error)]))
        self.put_features(
            replace(video, sha256=outcome.sha256, warning=warning), outcome.features, outcome.pictures, lines
        )
        (added.changed if task.known else added.added).append(video.id)

    def put_features(
        self, video: Video, features: NDArray[np.float16], pictures: Mapping[int, bytes], lines: Sequence[Line]
    ) -> int:
        """Embeds a video and writes it; the caller is the only writer.

        Args:
            video: what is known of the file.
            features: (rows, feature_size), as many rows a second as the model takes.
            pictures: JPEG files by second.
            lines: what is spoken.

        Returns:
            The video's number.
        """
        rows = indexing.encode(self.clip, features, self.store.setting("window"), self.store.setting("stride"))
        return self._put(replace(video, seconds=len(rows.states)), replace(rows, pictures=dict(pictures)), lines)

    def _put(self, video: Video, rows: Rows | None, lines: Sequence[Line] = ()) -> int:
        """Writes a video in place of the one with its number; returns its new number.

        With an engine its windows go there first: whatever kills the process, the library lists no video without them.
        """
        if self._engine is not None and rows is not None:
            number = self.store.next_number()
            self._engine.remove([number])
            self._engine.add(number, rows.spans, rows.vectors)
            rows = replace(rows, vectors=rows.vectors[:0])
        number = self.store.put(video, rows, lines)
        if self._engine is not None and video.number:
            self._engine.remove([video.number])
        return number

    # ---------------------------------------------------------------------------------------------------------- reading

    def video(self, video_id: str) -> Video:
        """What the library knows of a video.

        Raises:
            KeyError: if there is no such video.
        """
        for video in self.store.videos():
            if video.id == video_id:
                return video
        raise KeyError(f"the library {self.folder} has no video {video_id!r}: mmpt-search info lists what it has")

    def video_of_number(self, number: int) -> Video:
        """The same by number, which is never given to another video.

        Raises:
            KeyError: if there is no such video.
        """
        for video in self.store.videos():
            if video.number == number and video.failure is None:
                return video
        raise KeyError(f"the library {self.folder} has no video number {number}")

    @property
    def _engine_name(self) -> str:
        """Where the vectors are searched, for people."""
        engine = self.store.setting("engine")
        return f"{engine['address']} ({engine['collection']})" if engine else "SQLite and FAISS, exact"

    def measure(self, queries: int = 32) -> dict[str, Any]:
        """Compares searches with the plain products of all windows, and keeps the result with the library.

        Args:
            queries: how many vectors are drawn: windows of the library, around their mean.

        Returns:
            Of how many queries and windows; `recall@10`, the share of the ten best windows that a search finds; and the
            median search's milliseconds.

        Raises:
            ValueError: if the library is empty.
        """
        with self._lock:
            self._refresh(None)
            sample = self._index.sample()
            if not len(sample):
                raise ValueError(f"the library {self.folder} has no windows to search")
            rng = np.random.default_rng(0)
            chosen = sample[rng.choice(len(sample), min(queries, len(sample)), replace=False)] - sample.mean(axis=0)
            best = np.zeros((len(chosen), 0), np.float32)  # scores of the ten best so far
            for vectors in self._all_vectors():
                best = -np.sort(-np.hstack([best, similarity(chosen, vectors)]), axis=1)[:, :10]
            self._index.search(chosen[0], 10)  # the first search prepares the others
            shares, seconds = [], []
            for query, right in zip(chosen, best):
                begun = time.perf_counter()
                scores, _ = self._index.search(query, 10)
                seconds.append(time.perf_counter() - begun)
                slack = 1e-4 * float(np.abs(right).max())  # of arithmetic in another order
                shares.append(float((scores >= right[-1] - slack).sum()) / len(right))
        report = {
            "queries": len(chosen), "windows": len(self._index), "recall@10": round(float(np.mean(shares)), 4),
            "median ms": round(1000 * float(np.median(seconds)), 1),
        }  # fmt: skip
        self.store.put_setting("search", report)
        return report

    def _all_vectors(self) -> Iterator[Floats]:
        """(n, width) in parts, as they are kept."""
        if self._engine is None:
            for _, _, vectors in self.store.windows(None, self.width):
                yield vectors.astype(np.float32)
        else:
            for vectors, _ in self._engine.scan(self.store.searchable()):
                yield vectors.astype(np.float32)

    def info(self) -> dict[str, Any]:
        """Counts, settings, and the videos that failed or vanished; JSON types only."""
        videos = self.store.videos()
        whole = [video for video in videos if video.failure is None]
        model = self.store.setting("model")
        return {
            "folder": str(self.folder),
            "videos": len(whole),
            "hours": round(sum(video.seconds for video in whole) / 3600, 3),
            "windows": self.store.window_count(),
            "window_seconds": self.store.setting("window"),
            "stride_seconds": self.store.setting("stride"),
            "lines": self.store.line_count(),
            "with_transcript": sum(video.transcript is not None for video in whole),
            "labels": len(self.store.labels()),
            "model": {"path": model["path"], "sha256": model["sha256"]},
            "features": self.store.setting("features"),
            "engine": self._engine_name,
            "search": self.store.setting("search"),
            "bytes": sum(path.stat().st_size for path in self.folder.glob(f"{self.store.path.name}*")),
            "failed": {video.id: video.failure for video in videos if video.failure is not None},
            "warnings": {video.id: video.warning for video in whole if video.warning},
            "vanished": [video.id for video in videos if not video.path.exists()],
        }

    def prepare(self) -> None:
        """Loads the model and the vectors now and not at the first query."""
        self.embed("a sentence")
        with self._lock:
            self._refresh(None)
            if isinstance(self._index, VectorIndex):
                self._index.encode_new()

    def search(
        self, text: str, k: int = 10, within: str | Sequence[str] | None = None, said: float = DEFAULT_SAID
    ) -> Hits:
        """The moments that answer a query.

        Args:
            text: a sentence, or phrases: '"stir the soup" - "spoon"'.
            k: most hits; fewer come back where there are fewer.
            within: id or ids of the only videos to look into.
            said: weight of what is said against what is shown, 0 (only pictures) to 1 (only words).

        Raises:
            ValueError: for an empty or too long text, or k or said out of range.
            KeyError: if `within` names a video that is not there.
        """
        check_range("k", k, 1, MOST_HITS)
        check_range("said", said, 0, 1)
        query = parse_query(text)
        lines = []
        with self._lock:
            numbers = self._refresh(within)
            if said > 0:
                wanted = self._known.keys() if numbers is None else numbers
                found = self.store.find_lines(match_expression(query), 20 * k if numbers is None else -1)
                lines = [Span(number, line.start, line.end, score) for number, line, score in found if number in wanted]
        if said == 1:
            return Hits(self._describe(fuse([], lines, said)[:k]), words=bool(lines))
        return self._search_pictures(self.embed(query), k, numbers, lines, said)

    def similar(self, video_id: str, start: float, end: float, k: int = 10) -> Hits:
        """Moments that look like a given one, itself left out.

        Raises:
            ValueError: if the stretch lies outside the video.
            KeyError: if there is no such video.
        """
        check_range("k", k, 1, MOST_HITS)
        video = self.video(video_id)
        if not 0 <= start < end <= video.seconds:
            raise ValueError(f"{video_id} has {video.seconds} seconds; {start} to {end} is no stretch of it")
        with self._lock:
            self._refresh(None)
        first, states = self.store.states(video.number, int(start), int(np.ceil(end)), self.width)
        chosen = as_floats(states[int(start) - first : max(int(np.ceil(end)), int(start) + 1) - first])
        query = chosen.mean(axis=0) - self._index.sample().mean(axis=0)
        found = self._search_pictures(query, k, None, [], 0.0, without=Span(video.number, start, end, 0))
        return Hits(found)  # whether the best stands out is no question here: the moment itself is the best

    def scores_by_second(self, text: str, video_id: str) -> Floats:
        """The similarity of each second's state and the query, (seconds,)."""
        video = self.video(video_id)
        _, states = self.store.states(video.number, 0, video.seconds, self.width)
        return similarity(as_floats(states), self.embed(text))

    def highlights(self, k: int = 10, within: str | Sequence[str] | None = None) -> Hits:
        """Windows unlike the rest: those whose nearest neighbours in the library are the furthest.

        Args:
            k: most hits, not overlapping.
            within: id or ids of the only videos to look into.
        """
        check_range("k", k, 1, MOST_HITS)
        with self._lock:
            numbers = self._refresh(within)
            scores, windows = self._index.unlike_the_rest(4 * k, numbers)
        spans = [
            Span(video, start, end, score) for (video, start, end), score in zip(windows.tolist(), scores.tolist())
        ]
        return Hits(self._describe([Fused(span, span.score, span.score, 0.0) for span in merge_overlapping(spans)[:k]]))

    def _refresh(self, within: str | Sequence[str] | None) -> set[int] | None:
        """Takes over what other connections and processes have written; numbers of the videos in `within`."""
        thread, now = threading.get_ident(), self.store.change_counter()
        if self._seen.get(thread) != now:
            there = self.store.searchable()
            if isinstance(self._index, EngineIndex):
                self._index.follow(there, self.store.window_count())
            else:
                self._take_over(self._index, there)
            self._known = {video.number: video for video in self.store.videos() if video.failure is None}
            self._seen[thread] = now
        if within is None:
            return None
        by_id = {video.id: number for number, video in self._known.items()}
        wanted = [within] if isinstance(within, str) else list(within)
        if missing := [video_id for video_id in wanted if video_id not in by_id]:
            raise KeyError(f"the library {self.folder} has no video {missing[0]!r}: mmpt-search info lists what it has")
        return {by_id[video_id] for video_id in wanted}

    def _take_over(self, index: VectorIndex, there: set[int]) -> None:
        """Brings the vectors in memory to the state of the file."""
        indexed = index.videos()
        if gone := indexed - there:
            index.remove(gone)
        if new := there - indexed:
            if not indexed:
                index.reserve(self.store.window_count())
            for number, spans, vectors in self.store.windows(new if indexed else None, self.width):
                index.add(vectors, np.column_stack([np.full(len(spans), number), spans]))

    def _search_pictures(
        self,
        vector: Floats,
        k: int,
        numbers: set[int] | None,
        lines: list[Span],
        said: float,
        without: Span | None = None,
    ) -> Hits:
        """Windows find candidates, seconds find bounds, overlaps and copies go, then the words are joined."""
        seconds = SecondScores(self.store, vector)
        wanted = max(WINDOWS_PER_HIT * k, LEAST_WINDOWS)
        while True:
            with self._lock:
                scores, windows = self._index.search(vector, wanted, numbers)
                sample = self._index.sample()
            found = [seconds.moment(*window) for window in windows.tolist()]
            moments = merge_overlapping([moment for moment in found if moment is not None])
            if without is not None:
                moments = [
                    m for m in moments if m.video != without.video or m.end <= without.start or without.end <= m.start
                ]
            moments = self._without_copies(moments, k, seconds, sample.mean(axis=0) if len(sample) else vector)
            if len(moments) >= k or len(windows) < wanted:
                break
            wanted *= 4
        fused = fuse(moments, lines, said)[:k]
        limit = threshold(similarity(sample, vector), len(self._index))
        best = float(scores[0]) if len(scores) else float("nan")
        return Hits(self._describe(fused), best, limit, words=bool(lines) and said > 0)

    def _without_copies(self, moments: list[Span], k: int, seconds: SecondScores, mean: Floats) -> list[Span]:
        """Leaves out moments that show the same footage as a better one; looks at as many as k hits need."""
        kept: list[Span] = []
        directions = np.zeros((0, self.width), np.float32)
        for position, moment in enumerate(moments):
            if len(kept) == k:
                return kept + moments[position:]
            state = seconds.mean_state(moment)
            if state is None:  # removed a moment ago
                continue
            direction = state - mean
            direction /= max(float(np.linalg.norm(direction)), 1e-12)
            if not (directions @ direction > ALIKE).any():
                kept.append(moment)
                directions = np.vstack([directions, direction])
        return kept

    def _describe(self, fused: Sequence[Fused]) -> list[Moment]:
        moments = []
        for one in fused:
            span = one.span
            video = self._known.get(span.video)
            if video is None:  # removed a moment ago
                continue
            lines = self.store.lines(span.video, span.start, span.end)
            moments.append(
                Moment(
                    video_id=video.id,
                    path=video.path,
                    start=float(span.start),
                    end=float(span.end),
                    score=one.score,
                    spoken=" ".join(line.text for line in lines),
                    thumbnail=self.store.picture(span.video, (span.start + span.end) / 2),
                    shown=one.shown,
                    said=one.said,
                )
            )
        return moments

    # ----------------------------------------------------------------------------------------------------------- labels

    def label(self, query: str, video_id: str, start: float, end: float, right: bool = True) -> None:
        """Keeps the judgement that a moment does, or does not, answer a query.

        Raises:
            KeyError: if there is no such video.
            ValueError: for an empty query or a stretch that is none.
        """
        parse_query(query)
        video = self.video(video_id)
        if not 0 <= start < end <= video.seconds + 1:
            raise ValueError(f"{video_id} has {video.seconds} seconds; {start} to {end} is no stretch of it")
        self.store.put_label(query, video_id, float(start), float(end), right)

    def close(self) -> None:
        """Closes this thread's connection to the database."""
        self.store.close()


def find_files(videos: str | Path | Iterable[str | Path]) -> dict[str, Path]:
    """Files by name: their path below the folder without suffix, or their own name; absolute paths, sorted.

    Raises:
        FileNotFoundError: if there is nothing.
    """
    given = [videos] if isinstance(videos, (str, Path)) else list(videos)
    if not given:
        raise FileNotFoundError("no videos were given")
    files: dict[str, Path] = {}
    for source in map(Path, given):
        if source.is_dir():
            root = source.resolve()
            below = [
                path
                for path in sorted(root.rglob("*"))
                if path.suffix.lower() in VIDEO_SUFFIXES
                and path.is_file()
                and not any(part.startswith(".") for part in path.relative_to(root).parts)  # as macOS's ._a.mp4
            ]
            if not below:
                raise FileNotFoundError(f"{source}: no video in it (known: {' '.join(VIDEO_SUFFIXES)})")
            named = [(path.relative_to(root).with_suffix("").as_posix(), path) for path in below]
        elif source.is_file():
            named = [(source.stem, source.resolve())]
        else:
            raise FileNotFoundError(f"{source}: no such video or folder")
        for name, path in named:
            if path not in files.values():
                files[free_name(name, files)] = path
    return files


def free_name(name: str, taken: Iterable[str]) -> str:
    """The name, or "name (2)" and so on where it is taken."""
    names, number = set(taken), 1
    candidate = name
    while candidate in names:
        number += 1
        candidate = f"{name} ({number})"
    return candidate


def run_tasks(tasks: Sequence[Task], extraction: Extraction, workers: int) -> Iterator[tuple[Task, Extracted | str]]:
    """Extracts, here or in processes; yields each task with what it gave, or why it gave nothing."""
    if workers < 1:
        for task in tasks:
            yield task, extract_safely(task.video.path, extraction)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    with pool:
        share = replace(extraction, torch_threads=extraction.torch_threads or max(1, indexing.cores() // workers))
        futures = [pool.submit(extract_safely, task.video.path, share) for task in tasks]
        try:
            for task, future in zip(tasks, futures):
                try:
                    yield task, future.result()
                except BrokenProcessPool:
                    yield task, "a worker process died (killed, out of memory?): run the command again"
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def extract_safely(path: Path, extraction: Extraction) -> Extracted | str:
    """As `indexing.extract`; what is wrong with the video comes back as text."""
    try:
        return indexing.extract(path, extraction)
    except (ValueError, OSError) as error:
        return str(error)


def network_settings(
    clip: VideoClip, checkpoint: str | Path, network: str | None, given: Mapping[str, Any], device: str
) -> tuple[str, dict[str, Any]]:
    """The feature network of a new library, with its files, and the settings of its features.

    Args:
        clip: the model.
        checkpoint: its file, which may state the settings that it was trained on.
        network: as asked for.
        given: settings that were asked for; None where not.
        device: where to compute.

    Raises:
        FileNotFoundError, ValueError: if the network cannot be loaded, or is not the one the model was trained on.
    """
    trained_on = feature_settings(read_checkpoint(Path(checkpoint))) if Path(checkpoint).is_file() else None
    wanted = dict(trained_on or {}) | {name: value for name, value in given.items() if value is not None}
    if trained_on:
        check_same_settings(f"the features for {checkpoint}", wanted, trained_on)
    if network is None and "network" not in wanted:
        raise ValueError(
            f"{checkpoint} does not say which feature network it was trained on: name it with its files, s3d:FILE or "
            "hf:FOLDER (--network)"
        )
    name = network or str(wanted["network"])
    kind, _, place = name.partition(":")
    if place and Path(place).exists():
        name = f"{kind}:{Path(place).resolve()}"
    rate = clip.model.video_encoder.features_per_second
    extractor = open_extractor(wanted, name, device, rate)
    loaded = extractor.network
    size = clip.model.video_encoder.feature_projection.input.in_features
    if size != loaded.feature_size:
        raise ValueError(
            f"{checkpoint} takes features of {size} numbers, the network {loaded.name} gives {loaded.feature_size}: use "
            "the network that the model was trained on"
        )
    settings = FeatureSettings(
        network=loaded.name,
        weights_sha256=loaded.weights_sha256,
        feature_size=loaded.feature_size,
        precision=wanted.get("precision", "fp32"),
        fps=extractor.fps,
        frame_size=extractor.frame_size,
        features_per_second=rate,
    )
    return name, dataclasses.asdict(settings)


def describe_file(path: Path) -> dict[str, Any]:
    """Path, size, time and hash of a file, or of all files of a folder."""
    path = path.resolve()
    size, modified = stamp(path)
    if path.is_dir():
        import hashlib

        files = sorted(file for file in path.rglob("*") if file.is_file())
        names = "".join(f"{file.relative_to(path)} {file_sha256(file)}\n" for file in files)
        sha256 = hashlib.sha256(names.encode()).hexdigest()
    else:
        sha256 = file_sha256(path)
    return {"path": str(path), "bytes": size, "modified": modified, "sha256": sha256}


def stamp(path: Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Refuses a number out of range.

    Raises:
        ValueError: naming it.
    """
    if not low <= value <= high:
        raise ValueError(f"{name} is {value}; it must lie between {low} and {high}")
