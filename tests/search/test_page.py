"""The page in a real browser: Chromium, driven by Playwright. Nothing is fetched but from the server under test."""

from __future__ import annotations

import shutil
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn

from mmpt_plugin.search import VideoLibrary
from mmpt_plugin.search.server import make_app

from .conftest import film

pytestmark = pytest.mark.slow

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ODD = ["<img src=x onerror=document.title='taken'>", 'it\'s "quoted" & more', "a..b", "naïve 日本"]


@pytest.fixture(scope="module")
def served(make_library, films: Path, tmp_path_factory) -> Iterator[tuple[str, VideoLibrary, Path]]:
    """A server with a library of its own: address, library, folder of the films."""
    folder = tmp_path_factory.mktemp("served") / "films"
    shutil.copytree(films, folder)
    colours = ["red", "green", "blue", "violet", "white", "black"]
    for number, name in enumerate(ODD):
        film(folder / f"{name}.mp4", [colours[number], colours[(number + 2) % 6], colours[(number * 3 + 1) % 6]])
    (folder / f"{ODD[0]}.srt").write_text(
        "1\n00:00:01,000 --> 00:00:05,000\n<b>cut</b> the & potato <script>x</script>\n"
    )
    library = make_library(folder.parent / "library")
    library.add(folder)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(make_app(library), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", library, folder
        server.should_exit = True
        thread.join(10)


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        warnings.warn(
            "NO CHROMIUM: the search page is NOT tested in a browser (apt-get install chromium)", stacklevel=1
        )
        pytest.skip("no Chromium on this machine: the search page is not tested in a browser")
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="Playwright is not installed: the page is not tested"
    )
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser, served):
    """A page that fails the test at the end if it reported an error or asked another server."""
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(f"error: {error}"))
    page.on(
        "console",
        lambda line: troubles.append(line.text) if line.type == "error" and "Failed to load" not in line.text else None,
    )
    page.on("request", lambda request: None if request.url.startswith(served[0]) else troubles.append(request.url))
    page.set_default_timeout(15_000)
    page.goto(served[0])
    yield page
    context.close()
    assert troubles == []


def wait_until(page, expression: str, seconds: float = 15) -> None:
    """Waits for a condition; Playwright's own waiting evaluates text in the page, which its policy forbids."""
    until = time.monotonic() + seconds
    while not page.evaluate(expression):
        assert time.monotonic() < until, f"after {seconds} s still not: {expression}"
        page.wait_for_timeout(50)


def search(page, text: str, hits: bool = True) -> None:
    page.fill("#query", text)
    page.press("#query", "Enter")
    wait_until(page, "document.querySelector('#message').textContent !== 'Searching…'")
    if page.is_visible("#anyway"):
        page.click("#anyway")
    if hits:
        page.wait_for_selector(".hit >> visible=true")


def test_the_field_has_the_focus_and_enter_searches(page):
    assert page.evaluate("document.activeElement.id") == "query"
    search(page, "add the onions")
    assert page.locator(".hit").count() >= 3 and "add the onions" in page.locator(".hit .spoken").all_inner_texts()
    assert page.evaluate("document.querySelector('.hit img').naturalWidth") == 32
    assert page.locator(".hit .when").first.inner_text().count(":") == 2


def test_a_hit_plays_from_its_moment(page):
    search(page, "stir the pan")
    page.locator(".hit", has_text="stir the pan").first.click()
    wait_until(
        page, "document.querySelector('#screen').readyState >= 2 && document.querySelector('#screen').currentTime > 0.1"
    )
    start = float(page.url.split("play=")[1].split("%3A")[1].split("-")[0])
    assert page.evaluate("document.querySelector('#screen').currentTime") >= start
    wait_until(page, "!document.querySelector('#screen').paused || document.querySelector('#screen').ended")


def test_the_strip_jumps(page):
    search(page, "add the onions")
    page.locator(".hit", has_text="add the onions").first.click()
    wait_until(page, "document.querySelector('#screen').readyState >= 2")
    wait_until(page, "state.scores && state.scores.scores.length === 18")
    box = page.locator("#strip").bounding_box()
    page.mouse.click(box["x"] + 0.8 * box["width"], box["y"] + 10)
    wait_until(page, "Math.abs(document.querySelector('#screen').currentTime - 14) < 3")
    page.locator("#strip").press("PageDown")
    wait_until(page, "document.querySelector('#screen').currentTime < 10")
    wait_until(page, "document.querySelector('#strip').getAttribute('aria-valuetext').startsWith('0:0')")


def test_formats_that_browsers_do_not_play_are_converted(page):
    search(page, "add")
    page.select_option("#video", label="deep/three")
    wait_until(page, "[...document.querySelectorAll('.hit .name')].every((name) => name.textContent === 'deep/three')")
    if page.is_visible("#anyway"):
        page.click("#anyway")
    page.locator(".hit").first.click()
    wait_until(page, "document.querySelector('#screen').readyState >= 2")
    assert "/clip/" in page.get_attribute("#screen", "src") and page.is_hidden("#trouble")


def test_an_address_can_be_shared_and_reloaded(page, browser, served):
    search(page, "add the onions")
    page.locator(".hit").nth(1).click()
    page.wait_for_selector("#player >> visible=true")
    title, names = page.inner_text("#title"), page.locator(".hit").all_inner_texts()
    other = browser.new_context().new_page()
    other.goto(page.url)
    other.wait_for_selector("#player >> visible=true")
    assert other.inner_text("#title") == title and other.input_value("#query") == "add the onions"
    assert [text.split() for text in other.locator(".hit").all_inner_texts()] == [text.split() for text in names]
    other.context.close()
    page.go_back()
    page.wait_for_selector("#player", state="hidden")


def test_said_and_shown(page):
    search(page, "cut a potato and stir the pan")
    page.evaluate("const s = document.querySelector('#said'); s.value = 1; s.dispatchEvent(new Event('change'))")
    wait_until(page, "document.querySelectorAll('.hit').length === 2")  # the lines that have one of the words
    assert "said=1" in page.url


def test_more_like_this_and_highlights(page):
    page.click("#highlights")
    page.wait_for_selector(".hit >> visible=true")
    page.locator(".hit").first.click()
    page.click("#like")
    wait_until(
        page, "location.search.includes('like=') && document.querySelector('#message').textContent.includes('moment')"
    )
    assert page.locator(".hit").count() >= 1


def test_the_keyboard(page):
    search(page, "add the onions")
    page.keyboard.press("Escape")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.classList.contains('hit')")
    first = page.evaluate("document.activeElement.dataset.stretch")
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.stretch") != first
    page.keyboard.press("Enter")
    page.wait_for_selector("#player >> visible=true")
    page.keyboard.press("Escape")
    page.wait_for_selector("#player", state="hidden")
    assert page.evaluate("document.activeElement.classList.contains('hit')")
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "query"
    assert page.input_value("#query") == "add the onions"


def test_labels(page, served):
    search(page, "add the onions")
    page.locator(".hit").first.click()
    page.click("#right")
    wait_until(page, "document.querySelector('#kept').textContent === 'Kept as right.'")
    assert served[1].store.labels()[-1]["query"] == "add the onions"


def test_names_and_words_of_strangers_stay_text(page):
    search(page, "cut the potato")
    page.locator(".hit", has_text="potato").first.click()
    assert page.inner_text("#title") == ODD[0] and "potato" in page.inner_text("#spoken")
    search(page, "<script>document.title='taken'</script>")
    names = set(page.locator(".hit .name").all_inner_texts()) | set(page.locator("#video option").all_inner_texts())
    assert set(ODD) <= names
    assert page.title() != "taken" and page.locator(".hit script, .hit b, #video img").count() == 0


def test_nothing_confident_is_said_first(page):
    page.evaluate(
        "draw({hits: [{video: 1, id: 'x', start: 0, end: 3, seconds: 9, spoken: '', picture: '/picture/1/0'}], "
        "confident: false, best: 0.28, threshold: 0.41}, false)"
    )
    assert "Nothing is confidently like that: the best scores 0.280" in page.inner_text("#message")
    assert page.is_hidden("#hits")
    page.click("#anyway")
    assert page.is_visible("#hits")


def test_errors_are_told(page):
    page.goto(page.url.split("?")[0] + "?q=add&said=7")
    wait_until(page, "document.querySelector('#message').textContent.includes('said is 7')")


def test_a_video_that_is_gone(page, served):
    gone = served[2] / "two.mp4"
    aside = gone.with_suffix(".away")
    gone.rename(aside)
    try:
        search(page, "add")
        page.select_option("#video", label="two")
        wait_until(page, "[...document.querySelectorAll('.hit .name')].every((name) => name.textContent === 'two')")
        if page.is_visible("#anyway"):
            page.click("#anyway")
        page.locator(".hit").first.click()
        page.wait_for_selector("#trouble >> visible=true")
        assert "no longer there" in page.inner_text("#trouble")
    finally:
        aside.rename(gone)


@pytest.mark.parametrize("width", [375, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_and_is_readable(browser, served, width, scheme):
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    page.goto(f"{served[0]}/?q=add+the+onions&said=0.3")
    page.wait_for_selector(".hit", state="attached")
    if page.is_visible("#anyway"):
        page.click("#anyway")
    page.locator(".hit").first.click()
    page.wait_for_selector("#player >> visible=true")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for selector in ("#message", ".hit .when", ".hit .name", "#title", "#spoken", "#close", "#like"):
        assert contrast(page, selector) >= 4.5, selector
    for button in page.locator("button >> visible=true").all():
        assert button.bounding_box()["height"] >= 44
    context.close()


def contrast(page, selector: str) -> float:
    """WCAG 2's ratio of an element's text to what lies behind it."""
    colours = page.evaluate(
        """(selector) => {
            let element = document.querySelector(selector);
            const text = getComputedStyle(element).color;
            while (element && getComputedStyle(element).backgroundColor === 'rgba(0, 0, 0, 0)') element = element.parentElement;
            return [text, getComputedStyle(element).backgroundColor].map((c) => c.match(/[0-9.]+/g).slice(0, 3).map(Number));
        }""",
        selector,
    )

    def luminance(colour: list[float]) -> float:
        linear = [c / 255 / 12.92 if c / 255 <= 0.04045 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted(map(luminance, colours))
    return (high + 0.05) / (low + 0.05)
