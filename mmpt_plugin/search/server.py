"""The search page: a small server for one library, on this machine.

    /                           the page; its address says what is shown: ?q=..., ?like=NUMBER:START-END
    /api/search|similar|highlights|scores|label     JSON
    /video/NUMBER               the file, in ranges, so that seeking works
    /clip/NUMBER?start=&end=    a stretch, transcoded, for formats that browsers do not play
    /picture/NUMBER/SECOND      a JPEG file

Videos are named by the library's numbers, never by paths: nothing can be asked for that the library does not list. Pages
of other sites cannot ask either: foreign Host headers are refused (DNS rebinding), and so is a POST from another origin.
"""

from __future__ import annotations

import ipaddress
import json
import logging
import math
import socket
from collections.abc import Callable
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any

import jinja2  # noqa: F401 (starlette's templates need it, and do not say who brings it)
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mmpt_plugin.search import clips
from mmpt_plugin.search.library import DEFAULT_SAID, VideoLibrary
from mmpt_plugin.search.moments import Hits
from mmpt_plugin.search.store import Video

logger = logging.getLogger(__name__)

PAGE = Path(__file__).with_name("page")
HITS = 24
MOST_SCORES = 20_000  # seconds of a strip; longer videos are thinned out
LONGEST_BODY = 20_000
WILDCARDS = ("", "0.0.0.0", "::")

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; media-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

Endpoint = Callable[[Request], Response]


class OnlyOurPages:
    """Refuses foreign Host headers and POSTs of other origins; adds the headers that keep scripts out.

    Args:
        app: what answers.
        host: the address that the server listens on.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self.app = app
        self.host = host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        host = request.headers.get("host", "")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    *((name.encode(), value.encode()) for name, value in HEADERS.items()),
                ]
            await send(message)

        origin = request.headers.get("origin")
        refusal: Response | None = None
        if not is_our_host(host, self.host):
            refusal = PlainTextResponse(f"this server does not answer for the host {host!r}", 421)
        elif request.method == "POST" and origin not in (None, f"http://{host}", f"https://{host}"):
            refusal = PlainTextResponse("only the page of this server may write", 403)
        await (refusal or self.app)(scope, receive, send_with_headers)


def is_our_host(header: str, host: str) -> bool:
    """Whether a Host header may name this server.

    A name could be pointed at this machine by anybody who owns it, a number could not. So on all addresses any number will
    do, but only this machine's own name.
    """
    name = header.rsplit(":", 1)[0] if header.rpartition(":")[2].isdigit() else header
    name = name.strip("[]").lower().rstrip(".")
    if name in ("localhost", "127.0.0.1", "::1") or (name and name == host.lower()):
        return True
    if host not in WILDCARDS:
        return False
    if name == socket.gethostname().lower():
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def make_app(library: VideoLibrary, host: str = "127.0.0.1") -> OnlyOurPages:
    """The page's application.

    Args:
        library: what is searched.
        host: the address that it will listen on.
    """
    templates = Jinja2Templates(PAGE)

    def page(request: Request) -> Response:
        videos = [video for video in library.store.videos() if video.failure is None]
        context = {
            "name": library.folder.resolve().name,
            "videos": videos,
            "said": DEFAULT_SAID,
            "info": library.info(),
        }
        return templates.TemplateResponse(request, "page.html", context)

    def search(request: Request) -> Response:
        said = number_of(request, "said", DEFAULT_SAID)
        within = (
            library.video_of_number(int(number_of(request, "video"))).id if "video" in request.query_params else None
        )
        return answer(library, library.search(request.query_params.get("q", ""), HITS, within, said))

    def similar(request: Request) -> Response:
        video = library.video_of_number(int(number_of(request, "video")))
        return answer(library, library.similar(video.id, number_of(request, "start"), number_of(request, "end"), HITS))

    def highlights(request: Request) -> Response:
        return answer(library, library.highlights(HITS))

    def scores(request: Request) -> Response:
        video = library.video_of_number(int(number_of(request, "video")))
        values = library.scores_by_second(request.query_params.get("q", ""), video.id)
        step = -(-len(values) // MOST_SCORES) or 1
        return JSONResponse(
            {"seconds": video.seconds, "step": step, "scores": [round(float(v), 4) for v in values[::step]]}
        )

    def label(content: dict[str, Any]) -> Response:
        try:
            text, number = str(content["query"]), int(content["video"])
            start, end, right = float(content["start"]), float(content["end"]), content["right"]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"a label needs query, video, start, end and right ({error!r})") from error
        if not isinstance(right, bool):
            raise ValueError("right must be true or false")
        library.label(text, library.video_of_number(number).id, start, end, right)
        return JSONResponse({"kept": True})

    async def post_label(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return JSONResponse({"error": "a label comes as application/json"}, 415)
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LONGEST_BODY:
                return JSONResponse({"error": "the label is too long"}, 413)
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            return JSONResponse({"error": "a label comes as a JSON object"}, 400)
        return await run_in_threadpool(guarded(label), content)

    def video(request: Request) -> Response:
        return FileResponse(file_of(library.video_of_number(request.path_params["number"])))

    def clip(request: Request) -> Response:
        found = library.video_of_number(request.path_params["number"])
        content = clips.cut(file_of(found), number_of(request, "start"), number_of(request, "end"))
        return ranged(request, content)

    def picture(request: Request) -> Response:
        found = library.video_of_number(request.path_params["number"])
        content = library.store.picture(found.number, request.path_params["second"])
        if not content:
            raise KeyError("this video has no picture")
        return Response(content, media_type="image/jpeg", headers={"cache-control": "max-age=86400"})

    gets: dict[str, Endpoint] = {
        "/": page,
        "/api/search": search,
        "/api/similar": similar,
        "/api/highlights": highlights,
        "/api/scores": scores,
        "/video/{number:int}": video,
        "/clip/{number:int}": clip,
        "/picture/{number:int}/{second:int}": picture,
    }
    routes = [Route(path, guarded(endpoint), methods=["GET"]) for path, endpoint in gets.items()]
    routes.append(Route("/api/label", post_label, methods=["POST"]))
    return OnlyOurPages(Starlette(routes=[*routes, Mount("/static", StaticFiles(directory=PAGE / "static"))]), host)


def guarded(endpoint: Callable[[Any], Response]) -> Callable[[Any], Response]:
    """Turns what is wrong with a request into an answer that says so."""

    @wraps(endpoint)
    def safe(request: Any) -> Response:
        try:
            return endpoint(request)
        except KeyError as error:
            return JSONResponse({"error": str(error.args[0])}, 404)
        except FileNotFoundError as error:
            return JSONResponse({"error": str(error)}, 410)
        except (ValueError, OverflowError) as error:
            return JSONResponse({"error": str(error)}, 400)
        except OSError as error:
            logger.error("%s", error)
            return JSONResponse({"error": str(error)}, 500)

    return safe


def number_of(request: Request, name: str, default: float | None = None) -> float:
    """A number of the request's query string.

    Raises:
        ValueError: if it is missing or none.
    """
    text = request.query_params.get(name)
    if text is None and default is not None:
        return default
    try:
        value = float(text or "")
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f"{name} is {text!r}; a number is needed")
    return value


def file_of(video: Video) -> Path:
    """The video's file.

    Raises:
        FileNotFoundError: if it is gone.
    """
    if not video.path.is_file():
        raise FileNotFoundError(f"the file of {video.id} is no longer there")
    return video.path


def answer(library: VideoLibrary, hits: Hits) -> Response:
    """Hits as the page wants them."""
    numbers = {video.id: video for video in library.store.videos()}
    found = []
    for hit in hits:
        video = numbers.get(hit.video_id)
        if video is None:  # removed a moment ago
            continue
        found.append(
            {
                "video": video.number,
                "id": hit.video_id,
                "name": hit.path.name,
                "start": hit.start,
                "end": hit.end,
                "seconds": video.seconds,
                "score": hit.score,
                "spoken": hit.spoken,
                "picture": f"/picture/{video.number}/{round((hit.start + hit.end) / 2)}",
                "playable": is_playable(str(hit.path), video.modified),
            }
        )
    values = {
        name: value if math.isfinite(value) else None
        for name, value in (("best", hits.best), ("threshold", hits.threshold))
    }
    confident = hits.confident or values["threshold"] is None
    return JSONResponse({"hits": found, "confident": confident, **values}, headers={"cache-control": "no-store"})


@lru_cache(maxsize=4096)
def is_playable(path: str, modified: int) -> bool:
    """As `clips.playable`, once for each state of a file."""
    return clips.playable(Path(path))


def ranged(request: Request, content: bytes) -> Response:
    """Bytes that were made for this request, or the range of them that a player asks for."""
    headers = {"accept-ranges": "bytes", "cache-control": "max-age=3600"}
    kind, _, given = request.headers.get("range", "").partition("=")
    first, dash, last = given.partition("-")
    if kind != "bytes" or not dash or not first.isdigit() or (last and not last.isdigit()):
        return Response(content, media_type="video/mp4", headers=headers)
    start, end = int(first), min(int(last) if last else len(content) - 1, len(content) - 1)
    if start > end:
        return Response(status_code=416, headers={"content-range": f"bytes */{len(content)}"})
    headers["content-range"] = f"bytes {start}-{end}/{len(content)}"
    return Response(content[start : end + 1], 206, media_type="video/mp4", headers=headers)


def serve(library: VideoLibrary, host: str, port: int) -> int:
    """Serves the page until it is stopped.

    Raises:
        OSError: if the address cannot be had.
    """
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise OSError(f"--host {host} --port {port}: cannot listen there ({error}); choose another port") from error
    library.prepare()
    if (
        host in WILDCARDS
        or not ipaddress.ip_address(socket.gethostbyname(host) if ":" not in host else host).is_loopback
    ):
        logger.warning(
            "listening on %s: everybody who reaches this machine can search the library and watch its videos; there is no "
            "password and no encryption",
            host or "all addresses",
        )
    address = f"[{host}]" if ":" in host else host or "0.0.0.0"
    config = uvicorn.Config(make_app(library, host), log_level="warning", access_log=False)
    print(f"http://{address}:{listener.getsockname()[1]}/  (Ctrl+C stops it)", flush=True)  # noqa: T201
    uvicorn.Server(config).run(sockets=[listener])
    return 0
