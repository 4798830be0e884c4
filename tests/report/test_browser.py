"""Pages in a real Chromium: nothing on the console, no request, nothing wider than the window, drawn in time."""

import time

import numpy as np
import pytest

from mmpt_plugin.report.evaluation_pages import write_evaluation_page
from mmpt_plugin.report.run_log import LOG_FILE, append_record
from mmpt_plugin.report.training import write_training_page
from tests.report.conftest import MADE_UP, retrieval_scores
from tests.report.test_training import CLUSTERS

pytestmark = pytest.mark.slow

CHROMIUM = "/usr/bin/chromium"
SECONDS = 2.0  # that a large page may take to be drawn


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        except sync_api.Error as error:
            pytest.skip(f"no Chromium to look at pages with: {error}")
        yield browser
        browser.close()


@pytest.fixture
def look(browser):
    """Opens a page; gives the tab and the seconds until everything is drawn. Checks what must hold of every page."""
    contexts = []

    def open_page(path, width=1440, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        tab = context.new_page()
        said, asked = [], []
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("request", lambda request: asked.append(request.url))
        started = time.perf_counter()
        tab.goto(path.as_uri())
        tab.wait_for_selector(f"html[data-drawn={scheme}]", timeout=30_000)
        seconds = time.perf_counter() - started
        assert said == []
        assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        charts = tab.locator(".chart")
        assert charts.count() == tab.locator(".chart canvas").count() > 0
        return tab, seconds

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("name", MADE_UP)
def test_pages_are_drawn_at_both_widths_in_both_schemes(look, write_results, name):
    page = write_evaluation_page([write_results(name, MADE_UP[name]())])
    for width, scheme in ((1440, "light"), (375, "dark")):
        tab, _ = look(page, width, scheme)
        paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == {"light": "rgb(255, 255, 255)", "dark": "rgb(20, 23, 27)"}[scheme]
        widest = tab.evaluate("Math.max(...[...document.querySelectorAll('.chart canvas')].map(c => c.clientWidth))")
        assert 200 < widest <= width


def test_the_colours_follow_the_scheme(look, write_results):
    tab, _ = look(write_evaluation_page([write_results("youcook2", retrieval_scores())]))
    tab.emulate_media(color_scheme="dark")
    tab.wait_for_selector("html[data-drawn=dark]", timeout=30_000)
    assert tab.locator(".chart canvas").count() == tab.locator(".chart").count()


def test_pointing_at_a_bar_says_its_number(look, write_results):
    tab, _ = look(write_evaluation_page([write_results("youcook2", retrieval_scores())]))
    chart = tab.locator(".chart").nth(1)
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    tab.mouse.move(box["x"] + 120, box["y"] + 225)
    tab.wait_for_selector("#vg-tooltip-element.visible", timeout=5000)
    assert "queries" in tab.locator("#vg-tooltip-element").inner_text()


def test_markup_is_not_run(look, write_results):
    scores = retrieval_scores(20)
    scores["texts"] = np.array(
        ["</script><script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"] * 20
    )
    tab, _ = look(write_evaluation_page([write_results("youcook2", scores)]))
    assert tab.title() == "Evaluation: youcook2" and tab.locator("img").count() == 0


def test_a_hundred_thousand_queries_are_drawn_in_time(look, write_results):
    n = 100_000
    scores = retrieval_scores(40)
    scores |= {
        "similarities": np.random.default_rng(0).normal(size=(n, 40)).astype(np.float32),
        "targets": np.arange(n) % 40,
    }
    scores["texts"] = np.array([f"query {i}" for i in range(n)])
    page = write_evaluation_page([write_results("youcook2", scores)])
    look(page)  # a first page pays for the browser's start
    assert min(look(page)[1] for _ in range(3)) < SECONDS


def test_the_page_of_a_run(look, tmp_path):
    values = {
        "loss": 3.0,
        "text_to_video": 0.1,
        "video_to_text": 0.2,
        "lr": 1e-4,
        "gnorm": 9.0,
        "clip": 80.0,
        "memory_gb": 1.0,
    }
    append_record(tmp_path / LOG_FILE, "start", 0, 1, {})
    for update in range(10, 3000, 10):
        append_record(tmp_path / LOG_FILE, "step", update, 1, values | {"loss": 9 / update})
    append_record(tmp_path / LOG_FILE, "clusters", 2990, 2, CLUSTERS)
    page = write_training_page(tmp_path)
    for width, scheme in ((1440, "light"), (375, "dark")):
        look(page, width, scheme)
