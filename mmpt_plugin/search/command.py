"""mmpt-search: search in one's own videos.

    mmpt-search index VIDEOS --library LIB --checkpoint CKPT --network s3d:s3d_howto100m.pth
    mmpt-search query LIB "add the onions"
    mmpt-search query LIB '"stir the soup" - "spoon"' -k 5 --said 0 --clip CLIPS
    mmpt-search serve LIB

Exit codes: 0 all went well; 1 some videos could not be indexed (listed by info), or nothing was found; 2 a wrong argument or
file, nothing was done; 3 another process is writing to the library.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mmpt_plugin.extras import naming_extras
from mmpt_plugin.files import LockHeld, write_whole

if TYPE_CHECKING:
    from mmpt_plugin.search.library import VideoLibrary
    from mmpt_plugin.search.moments import Hits

logger = logging.getLogger("mmpt-search")

DEFAULT_PORT = 8765
ENGINE_HELP = (
    "of the vectors, qdrant:http://HOST:6333; of a new library, or where the library's is now (default: its own file)"
)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="mmpt-search", description=__doc__, formatter_class=raw)
    parser.add_argument("-v", "--verbose", action="store_true", help="show what happens inside")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(
        name: str, run: Callable[[argparse.Namespace], int], help: str, example: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=help, description=f"{help[0].upper()}{help[1:]}.\n\n    {example}", formatter_class=raw
        )
        sub.set_defaults(run=run)
        return sub

    sub = command(
        "index", index, "add videos to a library, which is made if it is not there; can be broken off and run again",
        "mmpt-search index videos/ --library lib --checkpoint checkpoint_best.pt --network s3d:s3d_howto100m.pth",
    )  # fmt: skip
    sub.add_argument("videos", nargs="+", metavar="VIDEOS", help="folders, with their subfolders, or files")
    sub.add_argument("--library", type=Path, required=True, metavar="LIB", help="folder of the library")
    sub.add_argument("--checkpoint", metavar="CKPT", help="of the model; needed for a new library")
    sub.add_argument("--bert", help="its BERT: folder or hub name (default: the one beside the checkpoint)")
    sub.add_argument("--transcripts", type=Path, metavar="DIR", help="named like the videos (default: beside them)")
    sub.add_argument(
        "--workers", type=int, default=0, metavar="N", help="processes that decode (default: none beside this)"
    )
    sub.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="for another process that writes")
    sub.add_argument("--device", default="cpu", help="cpu (default), cuda...")
    new = sub.add_argument_group("of a new library")
    new.add_argument("--network", help="feature network, s3d:FILE or hf:FOLDER (default: the one the checkpoint names)")
    new.add_argument("--precision", help="of the feature network: fp32, bf16, fp16 (default: as the checkpoint states)")
    new.add_argument("--fps", type=int, help="frames a second that the network sees (default: the checkpoint's, or 30)")
    new.add_argument(
        "--frame-size", type=int, metavar="PIXELS", help="side of a frame (default: the checkpoint's, or 224)"
    )
    new.add_argument("--window", type=int, metavar="SECONDS", help="that the video encoder sees at once")
    new.add_argument("--stride", type=int, metavar="SECONDS", help="from one window to the next")
    sub.add_argument("--engine", metavar="ADDRESS", help=ENGINE_HELP)

    def add_query_options(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("-k", type=int, default=10, metavar="N", help="most hits (default 10)")
        kind = sub.add_mutually_exclusive_group()
        kind.add_argument("--json", action="store_true", help="for programs, with pictures")
        kind.add_argument("--csv", action="store_true", help="for tables")
        sub.add_argument("--clip", type=Path, metavar="DIR", help="cut the hits out as MP4 files")
        sub.add_argument("--vtt", type=Path, metavar="DIR", help="write chapters for players, a file for each video")
        sub.add_argument("--edl", type=Path, metavar="FILE", help="write a cut list for editors (CMX 3600)")
        sub.add_argument("--device", default="cpu", help="cpu (default), cuda...")

    def add_library(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("library", type=Path, metavar="LIB", help="folder of the library")
        sub.add_argument(
            "--checkpoint", metavar="CKPT", help="where the library's checkpoint lies now, if it was moved"
        )
        sub.add_argument("--bert", help="where its BERT lies now")
        sub.add_argument("--engine", metavar="ADDRESS", help=ENGINE_HELP)

    sub = command(
        "query", query, "find the moments that answer a sentence", 'mmpt-search query lib "add the onions" -k 5'
    )
    add_library(sub)
    sub.add_argument("text", help="""a sentence, or '"stir the soup" - "spoon"'""")
    sub.add_argument(
        "--said", type=float, metavar="0..1", help="weight of what is said (default 0.3; 0: only pictures)"
    )
    sub.add_argument("--within", action="append", metavar="ID", help="look only into this video; may be repeated")
    add_query_options(sub)

    sub = command("similar", similar, "find moments that look like one", "mmpt-search similar lib soup 83 101")
    add_library(sub)
    add_stretch(sub)
    add_query_options(sub)

    sub = command("highlights", highlights, "find moments unlike the rest", "mmpt-search highlights lib -k 5")
    add_library(sub)
    sub.add_argument("--within", action="append", metavar="ID", help="look only into this video; may be repeated")
    add_query_options(sub)

    sub = command("info", info, "say what a library holds, and which videos failed or vanished", "mmpt-search info lib")
    sub.add_argument("library", type=Path, metavar="LIB", help="folder of the library")
    sub.add_argument("--json", action="store_true", help="for programs")
    sub.add_argument(
        "--measure", action="store_true", help="compare the search with brute force first, and keep the result"
    )

    sub = command("remove", remove, "take videos out of a library; the files stay", "mmpt-search remove lib soup")
    sub.add_argument("library", type=Path, metavar="LIB", help="folder of the library")
    sub.add_argument("ids", nargs="+", metavar="ID", help="as info lists them")
    sub.add_argument("--wait", type=float, default=0, metavar="SECONDS", help="for another process that writes")

    sub = command(
        "label", label, "keep a judgement: a moment does, or does not, answer a sentence",
        'mmpt-search label lib "add the onions" soup 83 101 right',
    )  # fmt: skip
    sub.add_argument("library", type=Path, metavar="LIB", help="folder of the library")
    sub.add_argument("text", help="the sentence")
    add_stretch(sub)
    sub.add_argument("judgement", choices=["right", "wrong"])

    sub = command(
        "labels", labels, "print the judgements, or measure the search by them", "mmpt-search labels lib --evaluate"
    )
    add_library(sub)
    sub.add_argument("--evaluate", action="store_true", help="Recall@1, @5, @10 at IoU 0.5 with 95%% intervals")
    sub.add_argument("--said", type=float, metavar="0..1", help="weight of what is said, for --evaluate")
    sub.add_argument("--out", type=Path, metavar="FILE", help="write to a file (JSON)")

    sub = command("serve", serve, "show a search page on this machine", "mmpt-search serve lib")
    add_library(sub)
    sub.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    sub.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"default {DEFAULT_PORT}; 0: any free one")
    sub.add_argument("--device", default="cpu", help="cpu (default), cuda...")
    return parser.parse_args(arguments)


def add_stretch(parser: argparse.ArgumentParser) -> None:
    """A video and two times."""
    parser.add_argument("video", metavar="ID", help="of the video, as info lists it")
    parser.add_argument("start", type=float, help="seconds")
    parser.add_argument("end", type=float, help="seconds")


def index(args: argparse.Namespace) -> int:
    """mmpt-search index."""
    from mmpt_plugin.search.library import VideoLibrary, find_files
    from mmpt_plugin.search.store import DATABASE

    find_files(args.videos)  # a wrong path shall leave no empty library
    if (args.library / DATABASE).exists():
        library = open_library(args)
    elif args.checkpoint is None:
        raise ValueError(f"{args.library} is no library yet: give the model's --checkpoint to make one")
    else:
        library = VideoLibrary.create(
            args.library, args.checkpoint, bert=args.bert, network=args.network, precision=args.precision, fps=args.fps,
            frame_size=args.frame_size, window=args.window, stride=args.stride, engine=args.engine, device=args.device,
        )  # fmt: skip
    added = library.add(args.videos, args.transcripts, workers=args.workers, wait=args.wait)
    print(
        f"{len(added.added)} added, {len(added.changed)} changed, {len(added.moved)} moved, {len(added.unchanged)} as "
        f"before, {len(added.failed)} failed; {added.transcripts} videos with a transcript"
    )
    for video_id in added.vanished:
        print(f"gone: {video_id} (still in the library; mmpt-search remove takes it out)")
    for video_id, reason in added.failed.items():
        print(f"failed: {video_id}: {reason}")
    return 1 if added.failed else 0


def query(args: argparse.Namespace) -> int:
    """mmpt-search query."""
    library = open_library(args)
    said = {} if args.said is None else {"said": args.said}
    return show(args, args.text, library.search(args.text, args.k, args.within, **said))


def similar(args: argparse.Namespace) -> int:
    """mmpt-search similar."""
    hits = open_library(args).similar(args.video, args.start, args.end, args.k)
    return show(args, f"like {args.video} {args.start:g}-{args.end:g}", hits)


def highlights(args: argparse.Namespace) -> int:
    """mmpt-search highlights."""
    return show(args, "highlights", open_library(args).highlights(args.k, args.within))


def show(args: argparse.Namespace, text: str, hits: Hits) -> int:
    """Prints hits and writes what was asked for."""
    from mmpt_plugin.search import clips, marks

    if args.json:
        print(marks.as_json(text, hits))
    elif args.csv:
        print(marks.as_csv(hits), end="")
    elif hits:
        print(marks.table(hits))
    if not hits:
        logger.warning("nothing was found")
        return 1
    if hits.threshold == hits.threshold and not hits.confident:
        logger.warning(
            "nothing is confidently like that: the best window scores %.4g, %.4g would stand out from this library",
            hits.best,
            hits.threshold,
        )
    if args.clip:
        for path in clips.write_clips(args.clip, hits):
            logger.info("wrote %s", path)
    if args.vtt:
        marks.write_vtt(args.vtt, text, hits)
    if args.edl:
        marks.write_edl(args.edl, text, hits)
    return 0


def info(args: argparse.Namespace) -> int:
    """mmpt-search info."""
    from mmpt_plugin.search.library import VideoLibrary
    from mmpt_plugin.search.marks import clock

    library = VideoLibrary.open(args.library)
    if args.measure:
        library.measure()
    content = library.info()
    if args.json:
        print(json.dumps(content, ensure_ascii=False, indent=1))
        return 0
    print(
        f"{content['videos']} videos, {content['hours']:.2f} hours, {content['windows']} windows of "
        f"{content['window_seconds']} s every {content['stride_seconds']} s, {content['lines']} spoken lines, "
        f"{content['labels']} labels, {content['bytes'] / 1e6:.1f} MB\n"
        f"model {content['model']['path']} ({content['model']['sha256'][:12]}), features of {content['features']['network']}\n"
        f"search: {content['engine']}"
    )
    if measured := content["search"]:
        print(
            f"  recall@10 {measured['recall@10']:.3f}, median {measured['median ms']} ms ({measured['queries']} queries "
            f"among {measured['windows']} windows)"
        )
    for video in library.store.videos():
        state = f"failed: {video.failure}" if video.failure else clock(video.seconds)
        notes = [state, *(["gone"] if not video.path.exists() else []), *(["transcript"] if video.transcript else [])]
        print(f"  {video.id}  {', '.join(notes)}")
    return 0


def remove(args: argparse.Namespace) -> int:
    """mmpt-search remove."""
    from mmpt_plugin.search.library import VideoLibrary

    library = VideoLibrary.open(args.library)
    for video_id in args.ids:
        library.video(video_id)  # all must be there before the first goes
    for video_id in args.ids:
        library.remove(video_id, wait=args.wait)
    return 0


def label(args: argparse.Namespace) -> int:
    """mmpt-search label."""
    from mmpt_plugin.search.library import VideoLibrary

    library = VideoLibrary.open(args.library)
    library.label(args.text, args.video, args.start, args.end, args.judgement == "right")
    return 0


def labels(args: argparse.Namespace) -> int:
    """mmpt-search labels."""
    from mmpt_plugin.search.labels import evaluate
    from mmpt_plugin.search.library import VideoLibrary

    library = VideoLibrary.open(args.library, args.checkpoint, bert=args.bert, engine=args.engine)
    said = {} if args.said is None else {"said": args.said}
    text = json.dumps(
        evaluate(library, **said) if args.evaluate else library.store.labels(), ensure_ascii=False, indent=1
    )
    if args.out:
        with write_whole(args.out, text=True) as file:
            file.write(text + "\n")
    else:
        print(text)
    return 0


def serve(args: argparse.Namespace) -> int:
    """mmpt-search serve."""
    from mmpt_plugin.search.server import serve as run

    return run(open_library(args), args.host, args.port)


def open_library(args: argparse.Namespace) -> VideoLibrary:
    """The library that a command names."""
    from mmpt_plugin.search.library import VideoLibrary

    return VideoLibrary.open(args.library, args.checkpoint, bert=args.bert, engine=args.engine, device=args.device)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code."""
    args = parse_arguments(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s", stream=sys.stderr, force=True)
    logging.getLogger("mmpt_plugin").setLevel(logging.INFO if args.verbose else logging.WARNING)
    logger.setLevel(logging.INFO)
    try:
        with naming_extras("search", "mmpt-search"):
            return args.run(args)
    except LockHeld as error:
        logger.error("%s", error)
        return 3
    except KeyError as error:
        logger.error("%s", error.args[0])
        return 2
    except (ValueError, OSError, ModuleNotFoundError) as error:
        logger.error("%s", error)
        return 2
    except KeyboardInterrupt:
        logger.error("broken off: what was finished is kept; the same command goes on from there")
        return 130


if __name__ == "__main__":
    sys.exit(main())
