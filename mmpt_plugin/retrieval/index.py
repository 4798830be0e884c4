"""Nearest videos by L2 distance of their embeddings. FAISS (https://github.com/facebookresearch/faiss) lives here only.

Two kinds: `flat` compares with every vector and is exact; `ivf` compares with the vectors of the `nprobe` nearest of
`num_centroids` k-means lists, where nprobe is the smallest that reaches a measured recall. (The original searches one
list of 512, whatever that finds.) Both use a GPU where FAISS has GPU support and sees one.
"""

from __future__ import annotations

import logging
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tqdm import tqdm

from mmpt_plugin.data.workers import available_cores

if TYPE_CHECKING:  # it needs fairseq
    from mmpt_plugin.retrieval.settings import RetrievalConfig

logger = logging.getLogger(__name__)

RECALL_QUERIES = 256  # vectors of the index that recall is measured on: a standard error of about 0.5% at recall 0.95
SEARCH_BLOCK = 4096  # queries handed to FAISS at once, so that a long search shows its progress
# A flat search is one large matrix product, |q|^2 - 2 q.v + |v|^2, whose rounding can swap neighbours that are nearly
# equally far; so it looks for some more, and their distances are summed again in full.
SPARE_CANDIDATES = 8
POINTS_PER_CENTROID = 64  # k-means sees at most so many vectors a list; FAISS's 256 take 4 times as long for no recall
MIN_POINTS_PER_CENTROID = 39  # with fewer FAISS warns that lists are badly placed

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@contextmanager
def all_cores() -> Iterator[None]:
    """Lets FAISS use every core of this process while the block runs.

    torchrun leaves each process one thread, but the others wait for this one. FAISS and torch share the number of threads of
    OpenMP, so it is put back afterwards: training would go on with more threads than it was given.
    """
    faiss = _import_faiss()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(available_cores())
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


class VideoIndex:
    """An index over one embedding a video.

    Attributes:
        kind: "flat" or "ivf".
        recall: share of the `num_neighbors` true nearest neighbours that a search finds; 1.0 for "flat", measured on a
            sample for "ivf".
        nprobe: lists searched for each query; None for "flat".
        num_centroids: lists in all; None for "flat".
    """

    def __init__(
        self,
        vectors: Floats,
        settings: RetrievalConfig,
        *,
        seed: int = 1,
        names: Sequence[str] | None = None,
    ) -> None:
        """Builds the index, and for "ivf" trains it and chooses nprobe.

        Args:
            vectors: (n, d) float32; row i is video i. Kept, not copied, if it is contiguous.
            settings: `index` is the kind. For "ivf" also `min_recall`, the recall of `num_neighbors` to reach;
                `num_centroids`, the lists (None: sqrt(n), or n / 39 if that is less. An epoch asks n / 32 queries only,
                so that training more lists takes longer than searching them saves); and `max_nprobe`, the most lists
                that a query may search (None: all, so that any recall is reached).
            seed: "ivf": of k-means and of the sample of queries.
            names: (n,) video ids, for error messages.

        Raises:
            ValueError: vectors that are not finite, more lists than videos, or min_recall not reached.
            ImportError: FAISS is not installed.
        """
        self._vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if self._vectors.ndim != 2 or not len(self._vectors):
            raise ValueError(
                f"vectors must be (videos, width) with at least one video, got shape {self._vectors.shape}"
            )
        _refuse_non_finite(self._vectors, names)
        self.kind = str(settings.index)
        self.recall = 1.0
        self.nprobe: int | None = None
        self.num_centroids: int | None = None

        faiss = _import_faiss()
        if self.kind == "flat":
            exact = faiss.IndexFlatL2(self._vectors.shape[1])
            exact.add(self._vectors)
            self._index = faiss.IndexRefine(_on_gpu_if_any(faiss, exact), exact)
        else:
            self._build_ivf(faiss, settings, seed)

    def __len__(self) -> int:
        return len(self._vectors)

    def search(self, queries: ArrayLike, k: int) -> tuple[Floats, Ints]:
        """Finds the k nearest videos of each query.

        Args:
            queries: (q, d).
            k: at most the number of videos.

        Returns:
            distances: (q, k), squared L2, ascending.
            indexes: (q, k), of the same videos.

        Raises:
            ValueError: fewer videos than k, or queries of the wrong width.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self._vectors.shape[1]:
            raise ValueError(f"queries must be (queries, {self._vectors.shape[1]}), got {queries.shape}")
        if not 1 <= k <= len(self):
            raise ValueError(
                f"k (neighbours of a search) must lie in 1..{len(self)}, the videos of the index, got {k}; "
                f"index more videos or ask for fewer neighbours"
            )
        distances, indexes = self._search(queries, k, self.nprobe)
        short = (indexes < 0).any(axis=1)  # the lists that "ivf" searched hold fewer than k videos
        if short.any():
            distances[short], indexes[short] = self._search(queries[short], k, self.num_centroids)
        return distances, indexes

    def neighbours_of(self, video_indexes: ArrayLike, k: int) -> Ints:
        """Finds the k nearest videos of videos of the index, each itself included.

        Args:
            video_indexes: (q,).
            k: at most the number of videos.

        Returns:
            (q, k) video indexes, nearest first; the first column is always `video_indexes`, also where other videos
            have the very same embedding.

        Raises:
            ValueError: fewer videos than k.
        """
        own = np.asarray(video_indexes, dtype=np.int64)[:, None]
        _, indexes = self.search(self._vectors[own[:, 0]], k)
        crowded_out = (indexes != own).all(axis=1)
        indexes[crowded_out, -1] = own[crowded_out, 0]
        return np.take_along_axis(indexes, np.argsort(indexes != own, axis=1, kind="stable"), axis=1)

    def _search(self, queries: Floats, k: int, nprobe: int | None) -> tuple[Floats, Ints]:
        """Searches in blocks; -1 where the lists searched hold fewer than k videos."""
        if self.kind == "flat":
            self._index.k_factor = 1 + SPARE_CANDIDATES / k
        else:
            self._index.nprobe = nprobe
        distances, indexes = np.empty((len(queries), k), dtype=np.float32), np.empty((len(queries), k), dtype=np.int64)
        blocks = range(0, len(queries), SEARCH_BLOCK)
        for begin in tqdm(blocks, desc="search", unit="block", disable=len(blocks) < 2, leave=False):
            block = slice(begin, begin + SEARCH_BLOCK)
            distances[block], indexes[block] = self._index.search(queries[block], k)
        return distances, indexes

    def _build_ivf(self, faiss: ModuleType, settings: RetrievalConfig, seed: int) -> None:
        num_videos, width = self._vectors.shape
        num_centroids = settings.num_centroids
        if num_centroids is None:
            num_centroids = max(1, min(round(num_videos**0.5), num_videos // MIN_POINTS_PER_CENTROID))
        if num_centroids > num_videos:
            raise ValueError(
                f"task.retrieval.num_centroids is {num_centroids}: it must be at most {num_videos}, the videos to index"
            )

        begin = time.perf_counter()
        self.num_centroids = num_centroids
        self._index = _on_gpu_if_any(faiss, faiss.IndexIVFFlat(faiss.IndexFlatL2(width), width, num_centroids))
        self._index.cp.seed = seed
        self._index.cp.max_points_per_centroid = POINTS_PER_CENTROID
        self._index.train(self._vectors)
        self._index.add(self._vectors)

        k = min(settings.num_neighbors, num_videos)
        sample = np.random.default_rng(seed).choice(num_videos, min(num_videos, RECALL_QUERIES), replace=False)
        queries = self._vectors[sample]
        _, exact = faiss.knn(queries, self._vectors, k)
        self.nprobe, self.recall = self._choose_nprobe(
            queries, exact, settings.min_recall, min(settings.max_nprobe or num_centroids, num_centroids)
        )
        logger.info(
            f"IVF index of {num_videos} videos: {self.nprobe} of {num_centroids} lists searched, recall@{k} "
            f"{self.recall:.3f} (min_recall {settings.min_recall}) on {len(queries)} videos, "
            f"{time.perf_counter() - begin:.1f} s"
        )

    def _choose_nprobe(self, queries: Floats, exact: Ints, min_recall: float, most: int) -> tuple[int, float]:
        """Finds the smallest number of lists to search, up to `most`, that reaches `min_recall`, and the recall there.

        Args:
            queries: (q, d).
            exact: (q, k), the true neighbours of the queries.
            min_recall: in (0, 1].
            most: lists.

        Raises:
            ValueError: `most` lists do not reach it.
        """
        # By distance, not by index: of videos equally near any is right. The factor allows for rounding.
        farthest = self._squared_distances(queries, exact).max(axis=1, keepdims=True) * (1 + 1e-5)

        def measure(nprobe: int) -> float:
            _, found = self._search(queries, exact.shape[1], nprobe)
            return float(((found >= 0) & (self._squared_distances(queries, found) <= farthest)).mean())

        enough = 1
        while (recall := measure(enough)) < min_recall and enough < most:
            enough = min(2 * enough, most)
        if recall < min_recall:
            raise ValueError(
                f"min_recall {min_recall} not reached: recall@{exact.shape[1]} is {recall:.3f} with {enough} of "
                f"{self.num_centroids} lists searched; raise max_nprobe, lower min_recall or num_centroids, or take "
                f"the exact index kind 'flat'"
            )
        # Half as many lists were too few, and recall only grows with them.
        fewer = range(enough // 2 + 1, enough)
        nprobe = fewer.start + bisect_left(fewer, min_recall, key=measure)
        return nprobe, measure(nprobe)

    def _squared_distances(self, queries: Floats, indexes: Ints) -> Floats:
        """(q, k) squared L2 distances of queries (q, d) to the videos `indexes` (q, k), summed in full."""
        differences = self._vectors[indexes] - queries[:, None]
        return np.einsum("qkd,qkd->qk", differences, differences)


def _import_faiss() -> ModuleType:
    logging.getLogger("faiss.loader").setLevel(logging.WARNING)  # it tells of each instruction set that it tries
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "retrieval needs FAISS, which cannot be imported: pip install faiss-cpu, or this package's extra [gpu] "
            "(pip install -e '.[gpu]') for a search on the GPU"
        ) from error
    return faiss


def _on_gpu_if_any(faiss: ModuleType, index: Any) -> Any:
    """The same index on the first GPU, where FAISS was built for GPUs and sees one."""
    if hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0:
        return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
    return index


def _refuse_non_finite(vectors: Floats, names: Sequence[str] | None) -> None:
    # min and max carry nan and inf along and need no (n, d) array of booleans.
    wrong = np.flatnonzero(~(np.isfinite(vectors.min(axis=1)) & np.isfinite(vectors.max(axis=1))))
    if len(wrong):
        listed = ", ".join(str(i) if names is None else names[i] for i in wrong[:10])
        raise ValueError(
            f"{len(wrong)} of {len(vectors)} videos have embeddings that are not finite: {listed}"
            f"{', ...' if len(wrong) > 10 else ''}; the model has diverged or their features are broken: check the "
            f"features, or go back to an earlier checkpoint with a smaller learning rate"
        )
