"""What the trained model must be measured against: nearest neighbours without any training by clips.

Scores are (queries, gallery), as the benchmark's. Vectors of sentences are MiniLM's own, of length 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

STRENGTHS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)  #: of the ridge's penalty
FOLDS = 5
FEATURE_LENGTH = 12.0
"""Mean length of EfficientNet-Lite2's features of the named photographs. Stored features have length 1, and its classifier
is given them at this length."""

Floats = NDArray[np.floating]


@torch.no_grad()
def sentence_vectors(texts: Sequence[str], minilm: Path, batch_size: int = 64) -> Floats:
    """MiniLM's vectors as its authors use it: means over the tokens, of length 1; (texts, 384)."""
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(minilm), AutoModel.from_pretrained(minilm).eval()
    vectors = []
    for start in range(0, len(texts), batch_size):
        inputs = tokenizer(list(texts[start : start + batch_size]), padding=True, truncation=True, return_tensors="pt")
        states, mask = model(**inputs).last_hidden_state, inputs["attention_mask"][..., None]
        vectors.append(((states * mask).sum(dim=1) / mask.sum(dim=1)).numpy())
    return unit(np.concatenate(vectors))


def unit(vectors: Floats) -> Floats:
    """Rows (N, D) of length 1."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def mean_of_seconds(features: Floats, start: float, end: float) -> Floats:
    """The mean row, (D,), of the whole seconds that start..end touches; at least one."""
    first = min(int(start), len(features) - 1)
    return features[first : max(first + 1, int(np.ceil(end)))].mean(axis=0, dtype=np.float32)


def ridge(inputs: Floats, outputs: Floats, strength: float) -> Callable[[Floats], Floats]:
    """Linear regression with an L2 penalty on its weights; the means are taken off first and added again.

    Args:
        inputs: (N, D).
        outputs: (N, E).
        strength: of the penalty.

    Returns:
        Maps (M, D) to (M, E).
    """
    input_mean, output_mean = inputs.mean(axis=0), outputs.mean(axis=0)
    centred = inputs - input_mean
    gram = centred.T @ centred + strength * np.eye(inputs.shape[1])
    weights = np.linalg.solve(gram, centred.T @ (outputs - output_mean))
    return lambda rows: (rows - input_mean) @ weights + output_mean


def chosen_strength(inputs: Floats, outputs: Floats, films: Sequence[str]) -> float:
    """The penalty with the least squared error on films that were left out, fold by fold.

    Args:
        inputs, outputs: as `ridge`.
        films: (N,) ids.
    """
    _, numbers = np.unique(films, return_inverse=True)
    folds = numbers % FOLDS
    errors = dict.fromkeys(STRENGTHS, 0.0)
    for fold in np.unique(folds):
        left_out = folds == fold
        for strength in STRENGTHS:
            predict = ridge(inputs[~left_out], outputs[~left_out], strength)
            errors[strength] += float(((predict(inputs[left_out]) - outputs[left_out]) ** 2).sum())
    return min(errors, key=lambda strength: errors[strength])


def ridge_scores(
    inputs: Floats, outputs: Floats, films: Sequence[str], clips: Floats, queries: Floats
) -> NDArray[np.float64]:
    """Cosines of queries with the sentence that a ridge regression foretells for each clip.

    What all sentences of the training share is taken off both, or each query would be nearest to it.

    Args:
        inputs: (N, D) features of clips to learn from.
        outputs: (N, E) vectors of their sentences.
        films: (N,) ids.
        clips: (gallery, D).
        queries: (Q, E).
    """
    foretold = ridge(inputs, outputs, chosen_strength(inputs, outputs, films))(clips)
    mean = outputs.mean(axis=0)
    return unit(queries - mean) @ unit(foretold - mean).T


def label_scores(classes: Floats, labels: Floats, queries: Floats) -> NDArray[np.float64]:
    """Cosines of queries with the mean of ImageNet's class names, weighed by the classifier.

    As ConSE (Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings", ICLR 2014), with all
    classes instead of the ten most probable.

    Args:
        classes: (gallery, C) probabilities.
        labels: (C, E) vectors of the classes' names.
        queries: (Q, E).
    """
    return queries @ unit(classes @ labels).T


@torch.no_grad()
def class_probabilities(clips: Floats, classifier: torch.nn.Linear) -> NDArray[np.float32]:
    """ImageNet's classes by EfficientNet-Lite2 from mean features of length about 1, (gallery, 1000)."""
    return classifier(torch.as_tensor(clips, dtype=torch.float32) * FEATURE_LENGTH).softmax(dim=1).numpy()
