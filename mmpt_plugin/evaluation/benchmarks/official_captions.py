"""Caption files of ActivityNet, VATEX, LSMDC and MSVD, as published, for the benchmark of a table of one's own.

    ActivityNet Captions  val_1.json: {"v_ID": {"duration", "timestamps": [[start, end], ...], "sentences": [...]}}
    VATEX                 vatex_validation_v1.0.json: [{"videoID": "ID_start_end", "enCap": [...], "chCap": [...]}]
    LSMDC                 LSMDC16_challenge_1000_publictect.csv: clip, four times and a sentence, separated by tabs
    MSVD                  AllVideoDescriptions.txt: "ID_start_end sentence", with test_list.txt or train_list.txt beside it

The content tells which of them a file is. Every description is about a whole video, named as the data set names it: one
paragraph of all sentences in ActivityNet, each English caption in the others.

Data: Krishna et al., ICCV 2017 (arXiv:1705.00754); Wang et al., ICCV 2019 (arXiv:1904.03493); Rohrbach et al., "Movie
Description", IJCV 2017 (arXiv:1605.03705); Chen and Dolan, ACL 2011. Paragraphs: Zhang et al., ECCV 2018 (arXiv:1804.06459).
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec

from mmpt_plugin.evaluation.annotation_files import FilledText, Seconds, checked, expecting, malformed, read_lines
from mmpt_plugin.files import parse_json

logger = logging.getLogger(__name__)

ACTIVITYNET = 'ActivityNet\'s captions, {"v_ID": {"duration", "timestamps": [[start, end], ...], "sentences": [...]}}'
VATEX = 'VATEX\'s captions, [{"videoID": "ID_start_end", "enCap": [...]}, ...]'
LSMDC = "LSMDC's captions, six cells a line, separated by tabs: the clip, four times, the sentence"
MSVD = 'MSVD\'s AllVideoDescriptions.txt, a line "ID_start_end sentence" for each description'
LSMDC_CELLS = 6
MSVD_LINE = re.compile(r"(\S+_\d+_\d+)\s+(\S.*)")

Described = list[tuple[str, str]]
"""Video id and description, in file order."""


def find_official_captions(path: Path, text: str, part: str) -> Described | None:
    """Takes the descriptions from a file of one of these data sets.

    Args:
        path: the file.
        text: its content.
        part: "test" or "train": which of MSVD's lists, `<part>_list.txt`, says what to take. The others have one file a part.

    Returns:
        The descriptions; None if the file is of none of these data sets.

    Raises:
        FileNotFoundError: if MSVD's list is not beside it.
        UnusableFile: if it is cut short, a record is malformed or a video is there twice; the message names the place.
    """
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    said = [(number, line) for number, line in lines if not line.startswith("#")]
    if text.lstrip().startswith("{"):
        name, described = "ActivityNet", _activitynet(path, text)
    elif text.lstrip().startswith("["):
        name, described = "VATEX", _vatex(path, text)
    elif lines and _is_lsmdc(lines[0][1]):
        name, described = "LSMDC", _lsmdc(path, lines)
    elif said and MSVD_LINE.fullmatch(said[0][1]):
        name, described = "MSVD", _msvd(path, said, path.with_name(f"{part}_list.txt"))
    else:
        return None
    videos = len({video for video, _ in described})
    logger.info("%s is a caption file of %s: %d descriptions of %d videos", path, name, len(described), videos)
    return described


class ActivityNetRecord(msgspec.Struct):
    """One video as ActivityNet Captions has it; a few of its segments end before they start, so that times are not compared."""

    duration: Seconds
    timestamps: list[tuple[float, float]]
    sentences: Annotated[list[FilledText], msgspec.Meta(min_length=1)]


def _activitynet(path: Path, text: str) -> Described:
    with expecting(path, ACTIVITYNET):
        content = parse_json(text, path)
    if not content:
        raise malformed(path, ACTIVITYNET, "no video in it")
    described = []
    for video, raw in content.items():
        record = checked(raw, ActivityNetRecord, f"video {video}", path, ACTIVITYNET)
        if len(record.timestamps) != len(record.sentences):
            raise malformed(
                path,
                ACTIVITYNET,
                f"video {video}: {len(record.sentences)} sentences, but {len(record.timestamps)} timestamps",
            )
        described.append((video, " ".join(sentence.strip() for sentence in record.sentences)))
    return described


class VatexRecord(msgspec.Struct):
    """One video as VATEX has it; its Chinese captions are not read."""

    videoID: FilledText
    enCap: Annotated[list[FilledText], msgspec.Meta(min_length=1)]


def _vatex(path: Path, text: str) -> Described:
    with expecting(path, VATEX):
        content = parse_json(text, path)
    records = [checked(raw, VatexRecord, f"record {place}", path, VATEX) for place, raw in enumerate(content)]
    if not records:
        raise malformed(path, VATEX, "no video in it")
    if repeated := _repeated(record.videoID for record in records):
        raise malformed(path, VATEX, f"{len(repeated)} videos are there twice, first {repeated[0]}")
    return [(record.videoID, caption.strip()) for record in records for caption in record.enCap]


def _is_lsmdc(line: str) -> bool:
    cells = line.split("\t")
    return len(cells) == LSMDC_CELLS and not {"text", "label"} & {cell.strip() for cell in cells}


def _lsmdc(path: Path, lines: list[tuple[int, str]]) -> Described:
    described = []
    for number, line in lines:  # no header, and quotation marks are part of the sentence
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != LSMDC_CELLS:
            raise malformed(path, LSMDC, f"line {number} has {len(cells)} cells")
        if not cells[0] or not cells[-1]:
            raise malformed(path, LSMDC, f"line {number} has an empty clip or sentence")
        described.append((cells[0], cells[-1]))
    return described


def _msvd(path: Path, lines: list[tuple[int, str]], part: Path) -> Described:
    sentences: dict[str, list[str]] = {}
    for number, line in lines:
        found = MSVD_LINE.fullmatch(line)
        if found is None:
            raise malformed(path, MSVD, f"line {number} is {line[:80]!r}")
        sentences.setdefault(found[1], []).append(found[2].strip())
    listed = [line.strip() for line in read_lines(part, f"MSVD's {part.name}, a video a line,") if line.strip()]
    official = f"MSVD's {part.name}, a video of {path.name} a line"
    if not listed:
        raise malformed(part, official, "no video in it")
    if repeated := _repeated(listed):
        raise malformed(part, official, f"{len(repeated)} videos are there twice, first {repeated[0]}")
    if unknown := [video for video in listed if video not in sentences]:
        raise malformed(
            part, official, f"{len(unknown)} of {len(listed)} videos have no description, first {unknown[0]}"
        )
    return [(video, sentence) for video in listed for sentence in sentences[video]]


def _repeated(videos: Iterable[str]) -> list[str]:
    seen: set[str] = set()
    return [video for video in videos if video in seen or seen.add(video)]  # type: ignore[func-returns-value]
