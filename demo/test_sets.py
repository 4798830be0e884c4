"""The demo world's test sets, in the official file formats of the benchmarks.

YouCook2, MSR-VTT and DiDeMo ask for steps whose verb and object no training task ever combines. COIN and CrossTask need
whole tasks: theirs are new fillings of the families' templates, so that some of their steps also occur in training.
"""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from demo import words
from demo.performance import StepSpan, Timeline, film, lay_out
from demo.world import Recipe, Step, Stream, World

VARIANTS_PER_FAMILY = 200  # to look through for unseen pairs before giving up

DIDEMO_CHUNKS, DIDEMO_CHUNK_SECONDS, DIDEMO_ANNOTATORS = 6, 5, 4
DIDEMO_VARIANTS = 10
CROSSTASK_VALIDATION_VIDEOS = 2


@dataclass(frozen=True)
class UnseenVideo:
    """A performance of an unseen variant, and which of its steps are asked for.

    Attributes:
        timeline: what it shows when.
        features: (S, 512) float16.
        asked: positions in `timeline.spans` of steps with an unseen verb-object pair, each pair once a test set.
        rng: the video's random numbers, for its sentences.
    """

    timeline: Timeline
    features: np.ndarray
    asked: tuple[int, ...]
    rng: np.random.Generator


def unseen_videos(world: World, stream: Stream, clips: int) -> Iterator[UnseenVideo]:
    """Videos of unseen variants, families taking turns, that together ask for `clips` different unseen pairs.

    Raises:
        ValueError: if the world has too few unseen pairs.
    """
    families = world.config.families
    found: set[tuple[int, int]] = set()
    for number in range(families * VARIANTS_PER_FAMILY):
        rng = world.rng(stream, number)
        recipe = world.new_variant(number % families, rng)
        asked = []
        for position, step in enumerate(recipe.steps):
            if world.is_unseen(step) and (step.verb, step.object) not in found and len(found) < clips:
                found.add((step.verb, step.object))
                asked.append(position)
        if asked:
            timeline = lay_out(recipe, world.config.step_seconds, world.config.gap_seconds, rng)
            yield UnseenVideo(timeline, film(timeline, world, rng), tuple(asked), rng)
        if len(found) == clips:
            return
    raise ValueError(
        f"DemoWorld: {clips} test clips with different unseen verb-object pairs were asked for, {len(found)} found: "
        "raise objects or verbs, or lower tasks_per_family or the number of clips"
    )


def write_youcook2(folder: Path, world: World) -> None:
    """youcook_val.pkl names the clips of unseen pairs; youcookii_annotations_trainval.json describes every step."""
    clips: list[dict[str, str]] = []
    database: dict[str, Any] = {}
    for number, video in enumerate(unseen_videos(world, Stream.YOUCOOK2, world.config.youcook2_clips)):
        video_id = f"yc_{number:04d}"
        sentences = [world.sentence(span.step, video.rng) for span in video.timeline.spans]
        segments = [annotated_bounds(span, video.timeline, world, video.rng) for span in video.timeline.spans]
        clips += [{"id": f"{video_id}_{i}", "caption": sentences[i]} for i in video.asked]
        database[video_id] = {
            "duration": float(video.timeline.seconds),
            "subset": "validation",
            "recipe_type": str(video.timeline.family),
            "video_url": "",
            "annotations": [
                {"segment": segment, "id": i, "sentence": sentence}
                for i, (segment, sentence) in enumerate(zip(segments, sentences))
            ],
        }
        save_features(folder, video_id, video.features)
    (folder / "youcook_val.pkl").write_bytes(pickle.dumps(clips, protocol=4))
    write_json(folder / "youcookii_annotations_trainval.json", {"database": database})


def annotated_bounds(span: StepSpan, timeline: Timeline, world: World, rng: np.random.Generator) -> list[int]:
    """Start and end of a step as an annotator saw them: each missed by some seconds, one second of the step kept."""
    middle = (span.start + span.end) // 2
    start, end = np.rint(rng.normal((span.start, span.end), world.config.bounds_spread)).astype(int)
    return [int(np.clip(start, 0, middle)), int(np.clip(end, middle + 1, timeline.seconds))]


def write_msrvtt(folder: Path, world: World) -> None:
    """MSRVTT_JSFUSION_test.csv: short videos around one step each. MSR_MC_test.csv: multiple choice on the same videos.

    Two of the four wrong options at least are of the same family where it has so many; none is of the right verb and
    object.
    """
    shown: list[tuple[int, Step]] = []  # (family, step) of each video
    retrieval, choices = [], []
    for video in unseen_videos(world, Stream.MSRVTT, world.config.msrvtt_clips):
        for position in video.asked:
            span = video.timeline.spans[position]
            before, after = video.rng.integers(0, 6, size=2)
            features = video.features[max(0, span.start - int(before)) : span.end + int(after)]
            number = 7000 + len(shown)
            save_features(folder, f"video{number}", features)
            sentence = world.sentence(span.step, video.rng)
            retrieval.append([f"ret{len(shown)}", f"msr{number}", f"video{number}", sentence])
            shown.append((video.timeline.family, span.step))
    for index, (family, step) in enumerate(shown):
        rng = world.rng(Stream.MSRVTT_QA, index)
        others = [i for i in rng.permutation(len(shown)) if i != index]
        relatives = [i for i in others if shown[i][0] == family][:2]
        wrong = (relatives + [i for i in others if i not in relatives])[:4]
        answer = int(rng.integers(5))
        options = [world.sentence(shown[i][1], rng) for i in wrong]
        options.insert(answer, world.sentence(step, rng))
        choices.append([index, f"mc{index}", f"msr{7000 + index}", *options, answer])
    _write_table(folder / "MSRVTT_JSFUSION_test.csv", ",", [["key", "vid_key", "video_id", "sentence"], *retrieval])
    header = ["", "key", "vid_key", "a1", "a2", "a3", "a4", "a5", "answer"]
    _write_table(folder / "MSR_MC_test.csv", "\t", [header, *choices])


def write_didemo(folder: Path, world: World) -> None:
    """test_data.json: moments of 30 s videos, by four annotators; train_data.json: the same without features."""
    videos = world.config.didemo_videos
    for name, numbers in (("test_data.json", range(videos)), ("train_data.json", range(videos, 3 * videos))):
        records: list[dict[str, Any]] = []
        for number in numbers:
            rng = world.rng(Stream.DIDEMO, number)
            timeline = _lay_out_chunks(world, number % world.config.families, rng)
            video_id = f"{10000000 + number}@N00_{number:04d}.avi"
            if name == "test_data.json":
                save_features(folder, video_id, film(timeline, world, rng))
            records += [
                {
                    "annotation_id": len(records) + i,
                    "description": world.sentence(span.step, rng),
                    "dl_link": "",
                    "num_segments": DIDEMO_CHUNKS,
                    "times": [_annotated_moment(span, world, rng) for _ in range(DIDEMO_ANNOTATORS)],
                    "video": video_id,
                    "reference_description": "",
                }
                for i, span in enumerate(span for span in timeline.spans if world.is_unseen(span.step))
            ]
        write_json(folder / name, records)


def _lay_out_chunks(world: World, family: int, rng: np.random.Generator) -> Timeline:
    """30 seconds of an unseen variant: steps of 1 or 2 chunks of 5 s, one of the first two with an unseen pair.

    Of some variants it is the one with most unseen pairs, so that most of the video is described by some sentence.
    """
    variants = [world.unseen_variant(family, rng) for _ in range(DIDEMO_VARIANTS)]
    recipe = max(variants, key=lambda variant: sum(map(world.is_unseen, variant.steps)))
    unseen = [position for position, step in enumerate(recipe.steps) if world.is_unseen(step)]
    first = max(0, unseen[int(rng.integers(len(unseen)))] - int(rng.integers(2)))
    spans, chunk = [], int(rng.random() < 0.25)  # two steps always fit: 1 + 2 + 1 + 2 chunks at most
    for step in recipe.steps[first:]:
        end = chunk + 1 + int(rng.random() < 0.25)
        if end > DIDEMO_CHUNKS:
            break
        spans.append(StepSpan(step, chunk * DIDEMO_CHUNK_SECONDS, end * DIDEMO_CHUNK_SECONDS))
        chunk = end + int(rng.random() < 0.25)  # sometimes a chunk of background
    return Timeline(family, tuple(spans), DIDEMO_CHUNKS * DIDEMO_CHUNK_SECONDS)


def _annotated_moment(span: StepSpan, world: World, rng: np.random.Generator) -> list[int]:
    """First and last chunk of a step, as one annotator sees them: sometimes one of them is off by one."""
    first, last = span.start // DIDEMO_CHUNK_SECONDS, span.end // DIDEMO_CHUNK_SECONDS - 1
    if rng.random() < world.config.annotator_agreement:
        return [first, last]
    wider = [[first - 1, last], [first, last + 1]]
    possible = [moment for moment in wider if moment[0] >= 0 and moment[1] < DIDEMO_CHUNKS]
    return possible[int(rng.integers(len(possible)))]


def write_coin(folder: Path, world: World) -> None:
    """COIN.json: videos of unseen tasks, all in subset 'testing'; the same step has the same id and label in each."""
    labels: dict[Step, tuple[int, str]] = {}
    database: dict[str, Any] = {}
    recipes = unseen_tasks(world, Stream.COIN, world.config.coin_tasks)
    for number in range(len(recipes) * world.config.coin_videos_per_task):
        recipe, rng = recipes[number % len(recipes)], world.rng(Stream.COIN, 1 + number)
        timeline = lay_out_sparsely(recipe, world, rng)
        for step in recipe.steps:
            labels.setdefault(step, (len(labels) + 1, world.sentence(step, rng)))
        video_id = f"coin{number:03d}"
        database[video_id] = {
            "video_url": "",
            "duration": float(timeline.seconds),
            "recipe_type": recipe.family,
            "class": words.FAMILIES[recipe.family][0],
            "subset": "testing",
            "start": 0.0,
            "end": float(timeline.seconds),
            "annotation": [
                {
                    "id": str(labels[span.step][0]),
                    "segment": [float(span.start), float(span.end)],
                    "label": labels[span.step][1],
                }
                for span in timeline.spans
            ],
        }
        save_features(folder, video_id, film(timeline, world, rng))
    write_json(folder / "COIN.json", {"database": database})


def write_crosstask(folder: Path, world: World) -> None:
    """crosstask_release/: unseen primary tasks with enough videos for a test set, and a related one without features.

    All videos of primary tasks have features, not only the test videos: the original draws its test set from the videos
    with features.
    """
    config, release = world.config, folder / "crosstask_release"
    (release / "annotations").mkdir(parents=True)
    blocks, videos, validation = [], [], []
    for index, recipe in enumerate(unseen_tasks(world, Stream.CROSSTASK, config.crosstask_tasks + 1)):
        task_id, is_primary = 10000 + 1111 * index, index < config.crosstask_tasks
        rng = world.rng(Stream.CROSSTASK, 1 + index)
        steps = ",".join(world.sentence(step, rng) for step in recipe.steps)
        title = f"Make {words.FAMILIES[recipe.family][0]}"
        blocks.append(f"{task_id}\n{title}\n\n{len(recipe.steps)}\n{steps}\n\n")
        for number in range(config.crosstask_videos_per_task + CROSSTASK_VALIDATION_VIDEOS if is_primary else 2):
            video_id = f"ct{index}_{number:03d}"
            timeline = lay_out_sparsely(recipe, world, rng)
            if is_primary:
                save_features(folder, video_id, film(timeline, world, rng))
            videos.append([task_id, video_id, f"https://example.org/{video_id}"])
            if is_primary and number >= config.crosstask_videos_per_task:
                validation.append(videos[-1])
            _write_table(
                release / "annotations" / f"{task_id}_{video_id}.csv",
                ",",
                [[step, f"{span.start:.2f}", f"{span.end:.2f}"] for step, span in enumerate(timeline.spans, start=1)],
            )
    (release / "tasks_primary.txt").write_text("".join(blocks[:-1]))
    (release / "tasks_related.txt").write_text(blocks[-1])
    _write_table(release / "videos.csv", ",", videos)
    _write_table(release / "videos_val.csv", ",", validation)


def unseen_tasks(world: World, stream: Stream, number: int) -> list[Recipe]:
    """Unseen variants, of different families as far as there are so many."""
    rng = world.rng(stream)
    families = rng.permutation(world.config.families)
    return [world.unseen_variant(int(families[i % len(families)]), rng) for i in range(number)]


def lay_out_sparsely(recipe: Recipe, world: World, rng: np.random.Generator) -> Timeline:
    """As COIN and CrossTask are: most of a video is background, and a step may be anywhere."""
    return lay_out(recipe, world.config.step_seconds, world.config.sparse_gap_seconds, rng)


def save_features(folder: Path, video_id: str, features: np.ndarray) -> None:
    (folder / "features").mkdir(parents=True, exist_ok=True)
    np.save(folder / "features" / f"{video_id}.npy", features)


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=1))


def _write_table(path: Path, delimiter: str, rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter=delimiter, lineterminator="\n").writerows(rows)
