"""The server behind the page: what it answers, and what it refuses."""

from __future__ import annotations

import json
import shutil

import pytest
from starlette.testclient import TestClient

from mmpt_plugin.search import command, server
from mmpt_plugin.search.server import is_our_host, make_app


@pytest.fixture(scope="module")
def client(library) -> TestClient:
    return TestClient(make_app(library), base_url="http://127.0.0.1")


@pytest.fixture(scope="module")
def number(library) -> int:
    return library.video("one").number


def test_the_page(client, library):
    answer = client.get("/")
    assert answer.status_code == 200 and answer.text.count("<option") == 4 and "deep/three" in answer.text
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe-inline" not in policy and "http" not in policy
    for forbidden in ("<script>", "<style", " style=", "onclick", "http://", "https://", "//cdn"):
        assert forbidden not in answer.text.replace("http://127.0.0.1", "")
    for name in ("page.css", "page.js", "icon.svg"):
        file = client.get(f"/static/{name}")
        assert file.status_code == 200 and "content-security-policy" in file.headers


def test_search(client, library, number):
    content = client.get("/api/search", params={"q": "onions", "said": 1}).json()
    (hit,) = content["hits"]
    assert (hit["video"], hit["id"], hit["start"], hit["spoken"]) == (number, "one", 1.0, "add the onions")
    assert hit["playable"] and client.get(hit["picture"]).headers["content-type"] == "image/jpeg"
    within = client.get("/api/search", params={"q": "onions", "said": 0, "video": number}).json()["hits"]
    assert {hit["id"] for hit in within} == {"one"}
    assert client.get("/api/highlights").json()["hits"]
    like = {"video": number, "start": 0, "end": 6}
    assert client.get("/api/similar", params=like).json()["hits"]
    scores = client.get("/api/scores", params={"q": "onions", "video": number}).json()
    assert len(scores["scores"]) == scores["seconds"] == 18


@pytest.mark.parametrize(
    "path, code, message",
    [
        ("/api/search", 400, "the query is empty"),
        ("/api/search?q=a&said=x", 400, "said is 'x'; a number is needed"),
        ("/api/search?q=a&said=nan", 400, "said is 'nan'"),
        ("/api/search?q=a&said=7", 400, "said is 7.0"),
        ("/api/search?q=a&video=99", 404, "no video number 99"),
        ("/api/search?q=a&video=1e400", 400, "video is '1e400'"),
        ("/api/search?q=" + "a" * 10_001, 400, "10001 characters"),
        ("/api/similar?video=1&start=0&end=9999", 400, "no stretch"),
        ("/api/scores?q=a", 400, "video is None"),
        ("/video/99", 404, "no video number 99"),
        ("/picture/99/0", 404, "no picture|no video"),
        ("/clip/1?start=5&end=2", 400, "a stretch of at most 600"),
        ("/clip/1?start=0&end=601", 400, "a stretch of at most 600"),
    ],
)
def test_wrong_requests(client, path, code, message):
    import re

    answer = client.get(path)
    assert answer.status_code == code and re.search(message, answer.json()["error"])


@pytest.mark.parametrize(
    "text", ['"', "*", "NEAR(a", "-", "🍅", "<script>", "'; DROP TABLE video", "../../etc/passwd", "%00"]
)
def test_special_queries(client, text):
    for said in (0, 0.5, 1):
        assert client.get("/api/search", params={"q": text, "said": said}).status_code == 200


def test_ranges(client, films, number):
    whole = (films / "one.mp4").read_bytes()
    answer = client.get(f"/video/{number}")
    assert answer.status_code == 200 and answer.content == whole and answer.headers["accept-ranges"] == "bytes"
    part = client.get(f"/video/{number}", headers={"range": "bytes=100-199"})
    assert part.status_code == 206 and part.content == whole[100:200]
    assert part.headers["content-range"] == f"bytes 100-199/{len(whole)}"
    assert client.get(f"/video/{number}", headers={"range": f"bytes={len(whole)}-"}).status_code == 416


def test_stretches_are_transcoded(client, library):
    number = library.video("deep/three").number  # Matroska, which not all browsers play
    path = f"/clip/{number}?start=2&end=5"
    clip = client.get(path)
    assert clip.status_code == 200 and clip.headers["content-type"] == "video/mp4" and clip.content[4:8] == b"ftyp"
    part = client.get(path, headers={"range": "bytes=4-7"})
    assert part.status_code == 206 and part.content == b"ftyp"
    assert client.get(path, headers={"range": "bytes=99999999-"}).status_code == 416
    assert client.get(path, headers={"range": "bytes=x-"}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/video/../../etc/passwd",
            "/video/..%2F..%2Fetc%2Fpasswd",
            "/static/../server.py",
            "/static/..%2F..%2Fserver.py",
        ),
        *("/video//etc/passwd", "/static/%2e%2e/library.py", "/video/1%00", "/library.sqlite"),
    ],
)
def test_nothing_is_served_by_path(client, path):
    answer = client.get(path)
    assert answer.status_code in (400, 404, 405) and b"root:" not in answer.content and b"import" not in answer.content


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.7:8765", "", "localhost.evil", "evil:80"]
)
def test_foreign_hosts_are_refused(client, host):
    answer = client.get("/", headers={"host": host})
    assert answer.status_code == 421 and "content-security-policy" in answer.headers


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost:8765", "[::1]:8765", "LOCALHOST"])
def test_own_hosts(client, host):
    assert client.get("/static/page.css", headers={"host": host}).status_code == 200


def test_hosts_of_a_server_for_others():
    assert is_our_host("kitchen.lan:80", "kitchen.lan") and not is_our_host("other.lan", "kitchen.lan")
    assert is_our_host("192.168.1.5:80", "0.0.0.0") and is_our_host("[fe80::1]:80", "::")
    assert not is_our_host("evil.example", "0.0.0.0") and not is_our_host("192.168.1.5", "127.0.0.1")


def test_labels_come_from_the_page_only(make_library, films, tmp_path):
    library = make_library(tmp_path / "library")
    library.add(films)
    client = TestClient(make_app(library), base_url="http://127.0.0.1")
    label = {"query": "add", "video": library.video("one").number, "start": 0, "end": 6, "right": True}
    assert client.post("/api/label", json=label).json() == {"kept": True}
    assert client.post("/api/label", json=label, headers={"origin": "http://127.0.0.1"}).status_code == 200
    assert client.post("/api/label", json=label, headers={"origin": "https://evil.example"}).status_code == 403
    assert (
        client.post("/api/label", content=json.dumps(label), headers={"content-type": "text/plain"}).status_code == 415
    )
    assert client.post("/api/label", json={"query": "x" * 30_000}).status_code == 413
    for wrong in ([], {"query": "a"}, label | {"right": 1}, label | {"end": "nan"}, label | {"start": 9e99}):
        assert client.post("/api/label", json=wrong).status_code == 400
    assert client.post("/api/label", json=label | {"video": 99}).status_code == 404
    deep = client.post("/api/label", content="[" * 9000, headers={"content-type": "application/json"})
    assert deep.status_code == 400
    assert len(library.store.labels()) == 1


def test_a_video_that_is_deleted_while_the_page_is_open(make_library, films, tmp_path):
    shutil.copytree(films, tmp_path / "films")
    library = make_library(tmp_path / "library")
    library.add(tmp_path / "films")
    client = TestClient(make_app(library), base_url="http://127.0.0.1")
    number = library.video("one").number
    (tmp_path / "films" / "one.mp4").unlink()
    for path in (f"/video/{number}", f"/clip/{number}?start=0&end=3"):
        answer = client.get(path)
        assert answer.status_code == 410 and "no longer there" in answer.json()["error"]
    assert client.get("/api/search", params={"q": "onions"}).status_code == 200
    library.remove("one")
    assert client.get(f"/video/{number}").status_code == 404
    assert "one" not in {hit["id"] for hit in client.get("/api/search", params={"q": "onions"}).json()["hits"]}


def test_an_address_in_use(library):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="choose another port"):
        server.serve(library, "127.0.0.1", taken.getsockname()[1])


@pytest.mark.parametrize(
    "host, exposed", [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True), ("", True), ("::", True)]
)
def test_a_server_for_others_says_what_that_means(library, monkeypatch, capsys, host, exposed):
    monkeypatch.setattr(server.uvicorn.Server, "run", lambda self, sockets: None)
    assert command.main(["serve", str(library.folder), "--host", host, "--port", "0"]) == 0
    out, err = capsys.readouterr()
    warned = (
        "everybody who reaches this machine can search the library and watch its videos; there is no password" in err
    )
    assert warned == exposed
    assert out.startswith(f"http://{'[::]' if host == '::' else host or '0.0.0.0'}:")


def test_it_listens_on_this_machine_only_unless_told(library, monkeypatch, capsys):
    listening = []
    monkeypatch.setattr(
        server.uvicorn.Server, "run", lambda self, sockets: listening.extend(s.getsockname()[0] for s in sockets)
    )
    assert command.main(["serve", str(library.folder), "--port", "0"]) == 0
    assert listening == ["127.0.0.1"] and capsys.readouterr().out.startswith("http://127.0.0.1:")
