"""One small file of each format, of the same three captions, for the tests of the readers."""

import gzip
import json
import pickle
import zipfile
from pathlib import Path

LINES = [(0.5, 2.0, "cut the onions"), (2.0, 4.25, "add salt & pepper"), (5.0, 7.5, "stir well")]
"""What every file holds, in seconds."""


def clock(seconds: float, mark: str = ".") -> str:
    """00:00:01.500"""
    whole, thousandths = divmod(round(1000 * seconds), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{mark}{thousandths:03}"


def srt() -> str:
    cues = (f"{i}\n{clock(s, ',')} --> {clock(e, ',')}\n<i>{text}</i>\n\n" for i, (s, e, text) in enumerate(LINES, 1))
    return "".join(cues)


def webvtt() -> str:
    cues = (
        f"name of cue\n{clock(s)} --> {clock(e)} align:start\n<v Ann>{text.replace('&', '&amp;')}\n\n"
        for s, e, text in LINES
    )
    return "WEBVTT - a title\nKind: captions\n\nNOTE no caption\n\nSTYLE\n::cue { color: red }\n\n" + "".join(cues)


def rolling() -> str:
    """As YouTube's: each line is typed word by word, then stands above the next; between two cues a short one."""
    cues, shown = [], " "
    for start, end, text in LINES:
        first, *rest = text.split()
        typed = first + "".join(f"<{clock(start + 0.1)}><c> {word}</c>" for word in rest)
        cues.append(f"{clock(start)} --> {clock(end)} align:start position:0%\n{shown}\n{typed}\n\n")
        cues.append(f"{clock(end)} --> {clock(end + 0.01)} align:start position:0%\n{text}\n \n\n")
        shown = text
    return "WEBVTT\nKind: captions\nLanguage: en\n\n" + "".join(cues)


def ass() -> str:
    head = (
        "[Script Info]\nScriptType: v4.00+\n\n[V4+ Styles]\nFormat: Name, Fontname\nStyle: Default,Arial\n\n[Events]\n"
    )
    form = "Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text\n"
    rows = [f"Dialogue: 0,{clock(s)[1:-1]},{clock(e)[1:-1]},Default,,0,0,0,,{{\\i1}}{text}\n" for s, e, text in LINES]
    return head + form + "Comment: 0,0:00:00.00,0:00:09.00,Default,,0,0,0,,no caption\n" + "".join(rows)


def ttml() -> str:
    cues = (
        f'<p begin="{clock(s)}" dur="{e - s}s">{text.replace(" ", "<br/>", 1).replace("&", "&amp;")}</p>'
        for s, e, text in LINES
    )
    return (
        '<?xml version="1.0" encoding="utf-8"?>\n<tt xmlns="http://www.w3.org/ns/ttml"><body><div>'
        + "".join(cues)
        + "</div></body></tt>"
    )


def segments() -> list[dict]:
    return [{"start": s, "end": e, "text": f" {text}"} for s, e, text in LINES]


def words() -> list[dict]:
    """WhisperX's words; the second of each caption lacks its times, as numbers do."""
    found = []
    for s, e, text in LINES:
        own = [{"word": word, "start": s, "end": e} for word in text.split()]
        found += [own[0], {"word": own[1]["word"]}, *own[2:]]
    return found


def json3() -> dict:
    events: list[dict] = [{"tStartMs": 0, "dDurationMs": 9000, "id": 1}]
    for s, e, text in LINES:
        segs = [{"utf8": word if i == 0 else f" {word}", "tOffsetMs": 100 * i} for i, word in enumerate(text.split())]
        events.append({"tStartMs": round(1000 * s), "dDurationMs": round(1000 * (e - s)), "segs": segs})
        events.append({"tStartMs": round(1000 * e), "aAppend": 1, "segs": [{"utf8": "\n"}]})
    return {"wireMagic": "pb3", "events": events}


def columns() -> dict[str, list]:
    starts, ends, texts = zip(*LINES)
    return {"start": list(starts), "end": list(ends), "text": list(texts)}


def table(delimiter: str = ",", decimal: str = ".") -> str:
    rows = (
        f'talk.mp4{delimiter}{str(s).replace(".", decimal)}{delimiter}{clock(e, decimal)}{delimiter}"{text}"\n'
        for s, e, text in LINES
    )
    return delimiter.join(("Video_ID", "start", "end", "caption")) + "\n" + "".join(rows)


def one_table() -> str:
    return ",start,end,text\n" + "".join(f"{i},{s},{e},{text}\n" for i, (s, e, text) in enumerate(LINES))


ONE_VIDEO: dict[str, str] = {
    "talk.srt": srt(),
    "talk.en.vtt": webvtt(),
    "talk.en-US.vtt": rolling(),
    "talk.ass": ass(),
    "talk.ttml": ttml(),
    "talk.json": json.dumps({"text": "x" * 100_000, "segments": segments(), "language": "en"}),
    "talk.mp4.json": json.dumps(segments()),
    "talk.cpp.json": json.dumps(
        {"transcription": [{"offsets": {"from": 1000 * s, "to": 1000 * e}, "text": text} for s, e, text in LINES]}
    ),
    "talk.hf.json": json.dumps({"chunks": [{"timestamp": [s, e], "text": text} for s, e, text in LINES]}),
    "talk.json3": json.dumps(json3()),
    "talk.tsv": "start\tend\ttext\n" + "".join(f"{s * 1000:.0f}\t{e * 1000:.0f}\t{text}\n" for s, e, text in LINES),
    "talk.csv": one_table(),
}
"""Name -> content of files of one video."""

MANY_VIDEOS: dict[str, str] = {
    "raw_caption.json": json.dumps({"talk": columns()}),
    "howto.json": json.dumps({"talk": [segment | {"text": [segment["text"]]} for segment in segments()]}),
    "howto.jsonl": json.dumps({"video_id": "talk", "description": segments()}) + "\n",
    "captions.jsonl": "".join(json.dumps({"video": "talk", **segment}) + "\n" for segment in segments()),
    "table.csv": table(),
    "table.tsv": table("\t"),
    "semicolons.csv": table(";", ","),
}
"""Name -> content of files that name their videos."""


def write_all(folder: Path) -> list[Path]:
    """Writes all files, each also in other encodings and packed; returns their paths."""
    paths = []
    for name, text in (ONE_VIDEO | MANY_VIDEOS).items():
        for kind, content in {
            "plain": text.encode(),
            "bom": b"\xef\xbb\xbf" + text.encode(),
            "utf16": text.encode("utf-16"),
            "crlf": text.replace("\n", "\r\n").encode(),
            "gz": gzip.compress(text.encode()),
        }.items():
            own = folder / kind
            own.mkdir(exist_ok=True)
            paths.append(own / (f"{name}.gz" if kind == "gz" else name))
            paths[-1].write_bytes(content)
    with zipfile.ZipFile(folder / "official.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/._talk.csv", b"\0\1\2")
        archive.writestr("csv/talk.csv", one_table())
    (folder / "howto.pickle").write_bytes(pickle.dumps({"talk": columns()}))
    return [*paths, folder / "official.zip", folder / "howto.pickle"]
