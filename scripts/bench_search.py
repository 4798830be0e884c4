#!/usr/bin/env python
"""Measures the search in one's own videos and prints JSON.

    python scripts/bench_search.py draw LIB --windows 100000            # a large library of drawn vectors
    python scripts/bench_search.py queries LIB                          # its latency, memory, exactness
    python scripts/bench_search.py engine sqlite+faiss DIR              # an engine (ours, sqlite-vec, lancedb): once to
                                                                        # fill the folder, once more to measure it
    python scripts/bench_search.py serving LIBRARY --films DIR          # 20 queries a second while videos are added
    python scripts/bench_search.py page LIBRARY                         # from Enter to the first thumbnail, in Chromium
    python scripts/bench_search.py base DIR --films FILMS               # a model of BERT-base's size and its libraries
    python scripts/bench_search.py shell DIR/library                    # a query from the shell
    python scripts/bench_search.py indexing --films DIR --library LIB   # against extraction alone

Vectors are drawn: videos of 250 windows around a centre of their own, in 768 dimensions.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

WIDTH = 768
WINDOWS_PER_VIDEO = 250
STRIDE = 16


def draw_videos(windows: int, seed: int = 0) -> Iterator[np.ndarray]:
    """(250, 768) float16 vectors of one video after the other."""
    for number in range(windows // WINDOWS_PER_VIDEO):
        rng = np.random.default_rng([seed, number])
        centre = rng.standard_normal(WIDTH, dtype=np.float32)
        yield (centre + rng.standard_normal((WINDOWS_PER_VIDEO, WIDTH), dtype=np.float32)).astype(np.float16)


def draw_queries(count: int) -> np.ndarray:
    """(count, 768) float32."""
    return np.random.default_rng(7).standard_normal((count, WIDTH), dtype=np.float32)


def resident() -> float:
    """MiB of this process's own memory."""
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(fields["RssAnon"].split()[0]) / 1024


def percentiles(seconds: Sequence[float]) -> dict[str, float]:
    """p50, p99 and worst in milliseconds."""
    values = 1000 * np.array(seconds)
    return {"p50": float(np.median(values)), "p99": float(np.quantile(values, 0.99)), "worst": float(values.max())}


def cpu_milliseconds(calls: Sequence[Callable[[], Any]]) -> float:
    """CPU time of a call, all threads together: steadier than the clock where other work is running."""
    begun = time.process_time()
    for call in calls:
        call()
    return 1000 * (time.process_time() - begun) / len(calls)


def timed(call: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def size_of(folder: Path) -> float:
    """MB of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


# ------------------------------------------------------------------------------------------------------------- engines


class Engine(Protocol):
    """What the comparison asks of a store of vectors."""

    def __init__(self, folder: Path) -> None: ...
    def add(self, number: int, vectors: np.ndarray) -> None: ...
    def finish(self) -> None: ...
    def search(self, query: np.ndarray, k: int) -> list[tuple[int, int]]: ...
    def count(self) -> int: ...


class SqliteFaiss:
    """Ours: blobs in SQLite, codes of FAISS in memory."""

    def __init__(self, folder: Path) -> None:
        from mmpt_plugin.search.store import DATABASE, Store
        from mmpt_plugin.search.vectors import VectorIndex

        self.store = Store(folder) if (folder / DATABASE).exists() else Store.create(folder, {"width": WIDTH})
        self.index = VectorIndex(WIDTH)
        self.numbers: dict[int, int] = {}

    def add(self, number: int, vectors: np.ndarray) -> None:
        from mmpt_plugin.search.store import Rows, Video

        starts = STRIDE * np.arange(len(vectors))
        rows = Rows(np.stack([starts, starts + 2 * STRIDE], axis=1), vectors, np.zeros((0, WIDTH), np.float16))
        self.store.put(Video(f"v{number}", Path(f"/v{number}"), 0, 0, ""), rows)

    def finish(self) -> None:
        """Nothing."""

    def search(self, query: np.ndarray, k: int) -> list[tuple[int, int]]:
        there = self.store.searchable()
        known = self.index.videos()
        if new := there - known:
            if not known:
                self.index.reserve(self.store.window_count())
            for number, spans, vectors in self.store.windows(new if known else None, WIDTH):
                self.index.add(vectors, np.column_stack([np.full(len(spans), number), spans]))
        return [(int(video) - 1, int(start) // STRIDE) for video, start, _ in self.index.search(query, k)[1]]

    def count(self) -> int:
        return self.store.window_count()


class SqliteVec:
    """SQLite with the extension sqlite-vec, float32, brute force."""

    def __init__(self, folder: Path) -> None:
        import sqlite_vec

        try:
            import pysqlite3 as sqlite3  # Python's own is often built without loadable extensions
        except ImportError:
            import sqlite3

        folder.mkdir(parents=True, exist_ok=True)
        self.connection = sqlite3.connect(folder / "vectors.sqlite", timeout=30, check_same_thread=False)
        self.connection.enable_load_extension(True)
        sqlite_vec.load(self.connection)
        self.connection.execute("PRAGMA journal_mode = WAL")
        self.connection.execute(
            f"CREATE VIRTUAL TABLE IF NOT EXISTS v USING vec0 (embedding float[{WIDTH}] distance_metric=cosine)"
        )
        self.connection.commit()

    def add(self, number: int, vectors: np.ndarray) -> None:
        with self.connection:
            self.connection.executemany(
                "INSERT INTO v (rowid, embedding) VALUES (?, ?)",
                [(number * WINDOWS_PER_VIDEO + i + 1, row.tobytes()) for i, row in enumerate(vectors.astype("<f4"))],
            )

    def finish(self) -> None:
        """Nothing."""

    def search(self, query: np.ndarray, k: int) -> list[tuple[int, int]]:
        rows = self.connection.execute(
            "SELECT rowid FROM v WHERE embedding MATCH ? AND k = ?", (query.astype("<f4").tobytes(), k)
        )
        return [divmod(row - 1, WINDOWS_PER_VIDEO) for (row,) in rows]

    def count(self) -> int:
        return self.connection.execute("SELECT count(*) FROM v").fetchone()[0]


class LanceDb:
    """LanceDB, float32, no approximate index."""

    def __init__(self, folder: Path) -> None:
        import lancedb
        import pyarrow as arrow

        folder.mkdir(parents=True, exist_ok=True)
        self.arrow = arrow
        self.schema = arrow.schema([("row", arrow.int64()), ("vector", arrow.list_(arrow.float32(), WIDTH))])
        database = lancedb.connect(folder)
        self.table = database.create_table("v", schema=self.schema, exist_ok=True)

    def add(self, number: int, vectors: np.ndarray) -> None:
        flat = self.arrow.array(vectors.astype(np.float32).ravel())
        column = self.arrow.FixedSizeListArray.from_arrays(flat, WIDTH)
        rows = self.arrow.array(number * WINDOWS_PER_VIDEO + np.arange(len(vectors)))
        self.table.add(self.arrow.table([rows, column], schema=self.schema))

    def finish(self) -> None:
        """Joins the many small files."""
        self.table.optimize()

    def search(self, query: np.ndarray, k: int) -> list[tuple[int, int]]:
        self.table.checkout_latest()
        rows = self.table.search(query).distance_type("dot").limit(k).select(["row", "_distance"]).to_arrow()["row"]
        return [divmod(row.as_py(), WINDOWS_PER_VIDEO) for row in rows]

    def count(self) -> int:
        return self.table.count_rows()


ENGINES: dict[str, type[Engine]] = {"sqlite+faiss": SqliteFaiss, "sqlite-vec": SqliteVec, "lancedb": LanceDb}


def add_some(name: str, folder: Path, first: int, videos: int) -> None:
    """Body of a process that adds videos."""
    engine = ENGINES[name](folder)
    for number, vectors in enumerate(draw_videos(videos * WINDOWS_PER_VIDEO, seed=1), start=first):
        engine.add(number, vectors)


def measure_engine(args: argparse.Namespace) -> dict[str, Any]:
    """Fills an engine, or measures a filled one: queries at rest and while another process adds, memory, kill -9."""
    videos = args.windows // WINDOWS_PER_VIDEO
    report: dict[str, Any] = {"engine": args.name, "windows": args.windows}
    if not args.folder.exists():
        engine, spent = ENGINES[args.name](args.folder), 0.0
        for number, vectors in enumerate(draw_videos(args.windows)):
            spent += timed(lambda: engine.add(number, vectors))  # noqa: B023
        finishing = timed(engine.finish)
        return report | {
            "insert windows/s": args.windows / spent,
            "finishing s": finishing,
            "disk MB": size_of(args.folder),
        }
    engine = ENGINES[args.name](args.folder)
    before = resident()  # what is imported is not counted
    queries = draw_queries(args.queries)
    ask = [lambda q=q: engine.search(q, 10) for q in queries]
    report["first query s"] = timed(ask[0])
    report["second query s"] = timed(ask[0])
    report["query ms at rest"] = percentiles([timed(one) for one in ask])
    report["query CPU ms"] = cpu_milliseconds(ask)
    report["memory MiB"] = resident() - before
    context = multiprocessing.get_context("spawn")
    writer = context.Process(target=add_some, args=(args.name, args.folder, videos, 20))
    writer.start()
    times: list[float] = []
    while writer.is_alive() or len(times) < 20:
        times.append(timed(ask[len(times) % len(ask)]))
        time.sleep(0.02)
    report["query ms while 20 videos are added"] = percentiles(times)
    writer = context.Process(target=add_some, args=(args.name, args.folder, videos + 20, 400))
    before_count = engine.count()
    writer.start()
    while ENGINES[args.name](args.folder).count() == before_count and writer.is_alive():
        time.sleep(0.05)
    time.sleep(0.2)
    os.kill(writer.pid or 0, signal.SIGKILL)
    writer.join()
    again = ENGINES[args.name](args.folder)
    report["after kill -9"] = {
        "whole videos only": again.count() % WINDOWS_PER_VIDEO == 0,
        "search works": len(again.search(queries[0], 10)) == 10,
    }
    return report


# ------------------------------------------------------------------------------------------------------------- queries


def draw_library(args: argparse.Namespace) -> dict[str, Any]:
    """Writes a library of drawn videos, with or without states of seconds and pictures; no model."""
    from mmpt_plugin.search.store import Rows, Store, Video

    model = {"path": "", "sha256": "", "bert": None}
    store = Store.create(args.library, {"width": WIDTH, "window": 2 * STRIDE, "stride": STRIDE, "model": model})
    pool = np.random.default_rng(3).standard_normal((8192, WIDTH), dtype=np.float32).astype(np.float16)
    starts = STRIDE * np.arange(WINDOWS_PER_VIDEO)
    spans = np.stack([starts, starts + 2 * STRIDE], axis=1)
    seconds = STRIDE * (WINDOWS_PER_VIDEO + 1)
    spent = 0.0
    for number, vectors in enumerate(draw_videos(args.windows)):
        states = np.roll(pool, number * 17, axis=0)[:seconds] if args.states else pool[:0]
        pictures = {second: bytes(6000) for second in range(0, seconds, 32)} if args.states else {}
        video = Video(f"v{number}", Path(f"/v{number}"), 0, 0, "", seconds=seconds)
        spent += timed(lambda: store.put(video, Rows(spans, vectors, states, pictures)))  # noqa: B023
    store.close()
    return {"windows": args.windows, "windows/s": args.windows / spent, "disk MB": size_of(args.library)}


def measure_queries(args: argparse.Namespace) -> dict[str, Any]:
    """Queries among a library's drawn vectors: windows alone, and with ten moments and their pictures; no text encoding."""
    from mmpt_plugin.search.library import VideoLibrary
    from mmpt_plugin.search.vectors import VectorIndex

    before = resident()
    library = VideoLibrary(args.library)
    queries = draw_queries(args.queries)
    opening = timed(lambda: library._refresh(None))
    index = library._index
    assert isinstance(index, VectorIndex)
    first = timed(lambda: index.search(queries[0], 40))
    coding = timed(index.encode_new)
    windows = len(index)
    scans = [lambda q=q: index.search(q, 40) for q in queries]
    report: dict[str, Any] = {
        "windows": windows,
        "opening s": opening,
        "first scan, without codes, s": first,
        "making codes s": coding,
        "memory MiB per 100,000 windows": (resident() - before) / windows * 1e5,
        "scan ms": percentiles([timed(scan) for scan in scans]),
        "scan CPU ms": cpu_milliseconds(scans),
    }
    video = library.store.videos()[0]
    if len(library.store.states(video.number, 0, 1, WIDTH)[1]):
        wholes = [lambda q=q: library._search_pictures(q, 10, None, [], 0.0) for q in queries]
        report["whole query ms (10 moments)"] = percentiles([timed(whole) for whole in wholes])
        report["whole query CPU ms"] = cpu_milliseconds(wholes)
    report["load average"] = os.getloadavg()[0]
    if args.check:
        products = np.concatenate([own.astype(np.float32) @ queries[: args.check].T for own in draw_videos(windows)])
        best = -np.sort(-products, axis=0)[:10].T  # (queries, 10)
        found = [index.search(query, 10)[0] for query in queries[: args.check]]
        report["queries that differ from brute force"] = sum(
            not np.allclose(own, right, rtol=1e-5) for own, right in zip(found, best)
        )
    library.close()
    return report


# ------------------------------------------------------------------------------------------------- server, page, index


def start_server(library: Path) -> tuple[multiprocessing.process.BaseProcess, str]:
    """`mmpt-search serve` in a process of its own; its address."""
    from mmpt_plugin.search import command

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = ["serve", str(library), "--port", str(port)]
    process = multiprocessing.get_context("spawn").Process(target=command.main, args=(arguments,), daemon=True)
    process.start()
    until = time.monotonic() + 120
    while time.monotonic() < until and process.is_alive():
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    return process, f"http://127.0.0.1:{port}"


QUERIES = (
    "chop the fish",
    "stir the fish",
    "pour the noodle",
    "mash the potato",
    "whisk the zucchini",
    "fry the beef",
)


def measure_serving(args: argparse.Namespace) -> dict[str, Any]:
    """20 queries a second from 8 clients while copies of films are added."""
    import httpx

    process, address = start_server(args.library)
    with tempfile.TemporaryDirectory() as folder:
        films = sorted(path for path in args.films.iterdir() if path.suffix in (".mp4", ".mkv"))
        for number in range(20):  # other bytes, so that none is known
            path = Path(folder, f"added {number:02}{films[number % len(films)].suffix}")
            path.write_bytes(films[number % len(films)].read_bytes() + bytes([number]))
        index = ["index", folder, "--library", str(args.library)]
        command = f"import sys; from mmpt_plugin.search.command import main; sys.exit(main({index!r}))"

        writer = subprocess.Popen([sys.executable, "-c", command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        times: list[float] = []
        errors: list[str] = []
        until = time.monotonic() + args.seconds

        def client(number: int) -> None:
            with httpx.Client(base_url=address, timeout=30) as http:
                due = time.monotonic() + number / 20
                while due < until:
                    time.sleep(max(0.0, due - time.monotonic()))
                    begun = time.perf_counter()
                    try:
                        answer = http.get("/api/search", params={"q": QUERIES[len(times) % len(QUERIES)], "said": 0.3})
                        if answer.status_code != 200:
                            errors.append(answer.text[:200])
                    except httpx.HTTPError as error:
                        errors.append(repr(error))
                    times.append(time.perf_counter() - begun)
                    due += 8 / 20

        clients = [threading.Thread(target=client, args=(number,)) for number in range(8)]
        for thread in clients:
            thread.start()
        for thread in clients:
            thread.join()
        still_adding = writer.poll() is None
        code = writer.wait()
    process.terminate()
    return {
        "queries": len(times), "seconds": args.seconds, "errors": errors[:5], "ms": percentiles(times),
        "videos were still being added at the end": still_adding, "exit code of index": code,
    }  # fmt: skip


def measure_page(args: argparse.Namespace) -> dict[str, Any]:
    """Milliseconds from Enter to the first thumbnail that is loaded, and screenshots where they are asked for."""
    from playwright.sync_api import sync_playwright

    process, address = start_server(args.library)
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    times: list[float] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.goto(address)
        for text in QUERIES:
            page.fill("#query", text)
            times.append(page.evaluate(ENTER_TO_THUMBNAIL) / 1000)
        if args.screenshots:
            take_screenshots(browser, address, args.screenshots)
        browser.close()
    process.terminate()
    return {"queries": len(times), "ms from Enter to the first thumbnail": percentiles(times)}


ENTER_TO_THUMBNAIL = """() => new Promise((done) => {
    const begun = performance.now(), old = document.querySelector('.hit img');
    document.querySelector('#form').requestSubmit();
    const look = () => {
        const anyway = document.querySelector('#anyway');
        if (!anyway.hidden) anyway.click();
        const picture = document.querySelector('.hit img');
        if (picture && picture !== old && picture.complete && picture.naturalWidth) done(performance.now() - begun);
        else requestAnimationFrame(look);
    };
    look();
})"""


def take_screenshots(browser: Any, address: str, folder: Path) -> None:
    """The page with hits and player at 375 and 1440 pixels, light and dark."""
    folder.mkdir(parents=True, exist_ok=True)
    for width, height in ((375, 812), (1440, 900)):
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            page.goto(f"{address}/?q=chop+the+fish&said=0.3")
            page.wait_for_selector(".hit", state="attached")
            if page.is_visible("#anyway"):
                page.click("#anyway")
            page.locator(".hit").first.click()
            page.wait_for_timeout(2500)
            page.evaluate("document.querySelector('#screen').pause()")
            page.screenshot(path=folder / f"search-{width}-{scheme}.png")
            page.close()


def write_base(args: argparse.Namespace) -> dict[str, Any]:
    """A model of BERT-base's size and S3D, both with random weights; a library of films, and an empty one for S3D."""
    import torch
    from bench_zeroshot import write_bert

    from mmpt_plugin.features.s3d import S3D
    from mmpt_plugin.models.config import VideoClipConfig
    from mmpt_plugin.models.videoclip import VideoClipModel
    from mmpt_plugin.search.library import VideoLibrary

    args.folder.mkdir(parents=True)
    write_bert(args.folder / "bert", base=True)
    bert = str((args.folder / "bert").resolve())
    settings = {"bert": bert, "video_layers": 6, "_name": "videoclip"}
    model = VideoClipModel.from_backbone(VideoClipConfig(bert=bert, video_layers=6))
    checkpoint = args.folder / "checkpoint.pt"
    torch.save({"model": model.state_dict(), "cfg": {"model": settings}}, checkpoint)
    torch.save(S3D().state_dict(), args.folder / "s3d.pth")
    VideoLibrary.create(args.folder / "library-s3d", checkpoint, network=f"s3d:{args.folder / 's3d.pth'}").close()
    library = VideoLibrary.create(args.folder / "library", checkpoint, network="grid", fps=6, frame_size=48)
    library.add(args.films)
    return {"weights": sum(weights.numel() for weights in model.parameters()), **library.info()}


def measure_shell(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of `mmpt-search query`, from the shell to the last line; the first run warms the disk."""
    code = "import sys; from mmpt_plugin.search.command import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "query", str(args.library), QUERIES[0]]
    times, used = [], []
    for _ in range(args.repeats + 1):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(timed(lambda: subprocess.run(command, check=True, capture_output=True)))
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return {"cold s": times[0], "warm s": times[1:], "warm CPU s": used[1:]}


def measure_indexing(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds to index films against the seconds that their features alone take, in turns."""
    from mmpt_plugin.search.indexing import Extraction, extractor_of
    from mmpt_plugin.search.library import VideoLibrary
    from mmpt_plugin.search.store import Store

    films = sorted(path for path in args.films.iterdir() if path.suffix in (".mp4", ".mkv"))[: args.count]
    source = VideoLibrary.open(args.library)
    extractor = extractor_of(
        Extraction(source.store.setting("network"), tuple(source.store.setting("features").items()))
    )
    source.clip  # noqa: B018  (loaded before the clock starts)
    names = ("model", "network", "features", "width", "window", "stride")
    alone, whole = [], []
    for _ in range(args.repeats):
        with tempfile.TemporaryDirectory() as folder:
            Store.create(Path(folder), {name: source.store.setting(name) for name in names}).close()
            library = VideoLibrary(folder, clip=source.clip)
            alone.append(timed(lambda: [extractor.extract(path) for path in films]))
            whole.append(timed(lambda library=library: library.add(films)))  # type: ignore[misc]
            library.close()
    ratio = float(np.median(np.array(whole) / np.array(alone)))
    return {"films": len(films), "features s": alone, "index s": whole, "index / features": ratio}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="WHAT")
    sub = commands.add_parser("draw", help="write a large library of drawn vectors")
    sub.add_argument("library", type=Path, help="a folder that does not exist")
    sub.add_argument("--windows", type=int, default=100_000)
    sub.add_argument("--no-states", dest="states", action="store_false", help="windows only: 25 GB less for a million")
    sub.set_defaults(measure=draw_library)
    sub = commands.add_parser("queries", help="latency, memory and exactness of a drawn library")
    sub.add_argument("library", type=Path)
    sub.add_argument("--queries", type=int, default=200)
    sub.add_argument("--check", type=int, default=0, metavar="N", help="compare N queries with brute force")
    sub.set_defaults(measure=measure_queries)
    sub = commands.add_parser(
        "engine", help="an engine for vectors: fills the folder if it is not there, else measures it"
    )
    sub.add_argument("name", choices=sorted(ENGINES))
    sub.add_argument("folder", type=Path)
    sub.add_argument("--windows", type=int, default=100_000)
    sub.add_argument("--queries", type=int, default=50)
    sub.set_defaults(measure=measure_engine)
    sub = commands.add_parser("serving", help="queries while videos are added")
    sub.add_argument("library", type=Path)
    sub.add_argument("--films", type=Path, required=True)
    sub.add_argument("--seconds", type=float, default=60)
    sub.set_defaults(measure=measure_serving)
    sub = commands.add_parser("page", help="from Enter to the first thumbnail")
    sub.add_argument("library", type=Path)
    sub.add_argument("--screenshots", type=Path, metavar="DIR", help="also take the pictures of the documentation")
    sub.set_defaults(measure=measure_page)
    sub = commands.add_parser("base", help="write a model of BERT-base's size with random weights, and a library")
    sub.add_argument("folder", type=Path, help="a folder that does not exist")
    sub.add_argument("--films", type=Path, required=True)
    sub.set_defaults(measure=write_base)
    sub = commands.add_parser("shell", help="mmpt-search query, from the shell to the last line")
    sub.add_argument("library", type=Path)
    sub.add_argument("--repeats", type=int, default=5)
    sub.set_defaults(measure=measure_shell)
    sub = commands.add_parser("indexing", help="indexing against extraction alone")
    sub.add_argument("--films", type=Path, required=True)
    sub.add_argument("--library", type=Path, required=True)
    sub.add_argument("--count", type=int, default=4)
    sub.add_argument("--repeats", type=int, default=3)
    sub.set_defaults(measure=measure_indexing)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    args = parse_arguments(arguments)
    print(json.dumps(args.measure(args), indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
