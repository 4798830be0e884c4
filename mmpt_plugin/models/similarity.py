"""How embeddings are compared: the one product that losses, retrieval, evaluation, fine-tuning and search share.

It is the dot product. A model with `model.normalize` gives unit vectors, whose dot products are cosines; any other gives
vectors of every length, as the paper's. So who compares need not know which, and nothing is scaled twice.

States of single seconds (COIN, CrossTask, DiDeMo's moments, HiREST, the bounds that a search finds) are unit vectors too
where the model normalises: each second is compared as a clip of its own, and windows that share a second average cosines.
A learned scale (`model.logit_scale`) belongs to losses: it changes no order, so evaluation and search leave it out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Vectors = TypeVar("Vectors", "NDArray[np.float32]", "Tensor")


def similarity(queries: Vectors, candidates: Vectors) -> Vectors:
    """Each query with each candidate.

    Args:
        queries: (Q, D) embeddings or states, an array or a tensor.
        candidates: (C, D) of the same kind; an array may be a single one (D,).

    Returns:
        (Q, C), or (Q,) with a single candidate.
    """
    return queries @ candidates.T


def similarity_to_own(queries: NDArray[np.float32], candidates: NDArray[np.float32]) -> NDArray[np.float32]:
    """Each query with candidates of its own: (N, D) and (N, K, D) to (N, K)."""
    return np.einsum("nd,nkd->nk", queries, candidates)


def unit_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, D) rows scaled to length 1; a row of zeros stays."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
