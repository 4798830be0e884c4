"""Pages from results files: what stands on them, and what becomes of files that are not as they should be."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from mmpt_plugin.report.charts import curves
from mmpt_plugin.report.command import main, make_pages
from mmpt_plugin.report.evaluation_pages import evaluation_page, read_evaluated, write_evaluation_page, write_table_page
from mmpt_plugin.report.headline import checkpoint_names, remarks
from mmpt_plugin.report.page import LIMIT, picture, render, render_within
from mmpt_plugin.report.parts import Detail, Page, Section, Table
from tests.report.conftest import MADE_UP, choice_scores, moment_scores, results_of, retrieval_scores


def without_script(html: str) -> str:
    """The page less the drawing script and the style, which are the same on all pages."""
    return re.sub(r"<script>.*?</script>|<style>.*?</style>", "", html, flags=re.DOTALL)


@pytest.mark.parametrize("name", MADE_UP)
def test_a_page_stands_beside_the_results(write_results, name):
    page = write_evaluation_page([write_results(name, MADE_UP[name]())])
    assert page.name == f"{name}.html"
    html = page.read_text()
    assert len(html.encode()) < LIMIT
    body = without_script(html)
    assert "Another gallery than the paper&#39;s: 4 items instead of the official 3,305" in body
    assert "40.0 - 60.0" in body and "22.7" in body  # interval and paper
    assert body.count('<script type="application/json">') >= 4
    assert not re.search(r"(?:src|href)=[\"'](?!data:|#)", body)


def test_no_partial_file_is_left(write_results):
    page = write_evaluation_page([write_results("youcook2", retrieval_scores())])
    assert sorted(file.suffix for file in page.parent.iterdir()) == [".html", ".json", ".npz"]


def test_markup_in_ids_and_texts_is_shown_as_text(write_results):
    evil = '</script><img src=x onerror="alert(1)"><b>&amp;'
    scores = retrieval_scores(20)
    scores["texts"] = np.array([f"{i}{evil}" for i in range(20)])
    scores["video_ids"] = np.array([f"{i}{evil}" for i in range(20)])
    changes = {
        "checkpoint": {"path": evil, "sha256": evil},
        "counts": {"expected": 21, "found": 20, "missing": [evil], "queries": 20},
    }
    body = without_script(write_evaluation_page([write_results("youcook2", scores, **changes)]).read_text())
    assert "<img" not in body and "<b>" not in body
    coin = MADE_UP["coin"]()
    coin["video_ids"] = np.array([evil + str(i) for i in range(4)])
    coin["labels"] = np.array([evil] * 3)
    body = without_script(write_evaluation_page([write_results("coin", coin)]).read_text())
    assert "<img" not in body and "alert(1)" in body


def test_results_without_scores_show_their_table(write_results):
    body = without_script(write_evaluation_page([write_results("youcook2", None)]).read_text())
    assert "There is no youcook2_scores.npz" in body and "22.7" in body


def test_damaged_scores_are_named(write_results):
    path = write_results("youcook2", retrieval_scores())
    scores = path.with_name("youcook2_scores.npz")
    scores.write_bytes(scores.read_bytes()[:500])
    body = without_script(write_evaluation_page([path]).read_text())
    assert "Only the table of results can be shown" in body and "youcook2_scores.npz" in body


@pytest.mark.parametrize(
    ("name", "old"),
    [
        ("youcook2", {"texts", "video_ids", "spans"}),
        ("msrvtt_qa", {"texts", "options", "answers", "video_ids"}),
        ("didemo_moment", {"texts", "moments", "video_ids", "prior"}),
        ("coin", {"labels", "class_label_ids", "targets"}),
        ("crosstask", {"task_titles", "step_texts", "truths"}),
    ],
)
def test_an_older_format_is_shown_as_far_as_it_goes(write_results, name, old):
    scores = {key: array for key, array in MADE_UP[name]().items() if key not in old}
    page = evaluation_page([read_evaluated(write_results(name, scores))], Detail())
    assert any("older format" in text for text in page.sections[0].remarks)
    assert render(page)


def test_scores_of_another_benchmark_are_refused(write_results):
    with pytest.raises(ValueError, match=r"youcook2_scores.npz: the results are of youcook2, .* of kind moments"):
        read_evaluated(write_results("youcook2", moment_scores()))
    with pytest.raises(ValueError, match="of kind unknown"):
        read_evaluated(write_results("coin", {"numbers": np.zeros(3)}))


def test_arrays_that_do_not_fit_each_other_are_refused(write_results):
    scores = retrieval_scores(9)
    scores["video_ids"] = scores["video_ids"][:5]
    with pytest.raises(ValueError, match=r"youcook2_scores.npz: 5 video ids for a gallery of 9"):
        write_evaluation_page([write_results("youcook2", scores)])


def test_a_benchmark_of_ones_own_is_shown_by_its_arrays(write_results):
    page = evaluation_page([read_evaluated(write_results("my_videos", retrieval_scores()))], Detail())
    assert [part.title for part in page.sections[0].parts][2] == "Ranks"
    page = evaluation_page([read_evaluated(write_results("my_videos", {"numbers": np.zeros(3)}))], Detail())
    assert "No pictures are made for arrays numbers" in page.sections[0].remarks[-1]


def test_undefined_numbers_are_said(write_results):
    assert remarks(results_of("coin", metrics={"edit": None}))[-1].startswith("Undefined")
    path = write_results(
        "youcook2", None, metrics={"R@1": None}, baselines={}, paper={}, intervals={"R@1": [None, None]}
    )
    assert "Undefined" in write_evaluation_page([path]).read_text()


def test_fine_tuned_results_say_so():
    checkpoint = {"path": "a.pt", "sha256": "0", "fine_tuned_on": "youcook2"}
    assert (
        "fine-tuned on youcook2; the paper's numbers are its fine-tuned ones"
        in remarks(results_of("youcook2", checkpoint=checkpoint))[-1]
    )


def test_several_evaluations_stand_side_by_side(write_results, tmp_path):
    files = [
        write_results("youcook2", retrieval_scores(), "a"),
        write_results("youcook2", retrieval_scores(seed=1), "b", checkpoint={"path": "/runs/b/checkpoint_best.pt"}),
        write_results("coin", MADE_UP["coin"](), "a"),
    ]
    page = evaluation_page([read_evaluated(file) for file in files], Detail())
    assert len(page.sections) == 4
    table = page.sections[0].parts[0]
    assert list(table.columns)[:4] == ["benchmark and metric", "chance", "a/checkpoint_best.pt", "b/checkpoint_best.pt"]
    assert table.rows[0][0] == "youcook2 R@1" and table.rows[0][3] == "50.0 (40.0 - 60.0)"
    assert (
        page.sections[0]
        .remarks[0]
        .startswith("Another gallery than the paper's: youcook2 (4 of 3,305), coin (4 of 3,305). These")
    )
    with pytest.raises(ValueError, match="--output"):
        write_evaluation_page(files)
    assert write_table_page(files, tmp_path / "table.html").stat().st_size < LIMIT


def test_checkpoints_of_one_name_are_told_apart():
    same = [results_of("coin", checkpoint={"path": "/r/a.pt", "sha256": digest}) for digest in ("1" * 64, "2" * 64)]
    assert checkpoint_names(same) == ["/r/a.pt (11111111)", "/r/a.pt (22222222)"]
    assert checkpoint_names([same[0]]) == ["a.pt"]


def test_a_page_is_made_smaller_until_it_fits():
    def build(detail: Detail) -> Page:
        words = "x" * 1000 * (detail.examples + 100 * detail.pictures)
        return Page("t", [Section("s", [Table("", [words], [])])])

    base = len(render(build(Detail(0, 0, 0, False))).encode())
    html = render_within(build, base + 7000)
    assert "x" * 6000 in html and "x" * 6001 not in html and "are left out, so that this page stays below" in html
    with pytest.raises(ValueError, match="show fewer results"):
        render_within(build, base - 1)


@pytest.mark.parametrize("kind", ["retrieval", "choice", "moments"])
def test_many_queries_fit(write_results, kind):
    """100,000 queries; of retrieval, for a gallery of 40."""
    n = 100_000
    if kind == "retrieval":
        scores = retrieval_scores(40)
        targets = np.arange(n) % 40
        scores |= {"similarities": np.random.default_rng(0).normal(size=(n, 40)).astype(np.float32), "targets": targets}
        scores["texts"] = np.array([f"query {i}" for i in range(n)])
        path = write_results("youcook2", scores)
    elif kind == "choice":
        path = write_results("msrvtt_qa", choice_scores(n))
    else:
        path = write_results("didemo_moment", moment_scores(n))
    page = write_evaluation_page([path])
    assert page.stat().st_size < 1_500_000 < LIMIT


def test_the_script_writes_pages_and_refuses_with_a_message(write_results, tmp_path, capsys):
    path = write_results("youcook2", retrieval_scores())
    assert make_pages([path.parent]) == [path.with_suffix(".html")]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "empty")])
    assert ended.value.code == 1 and "no results file" in capsys.readouterr().err
    main([str(path), "--output", str(tmp_path / "page.html")])
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")


def test_other_json_is_refused(tmp_path):
    (tmp_path / "coin.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(ValueError, match="is not a results file"):
        write_evaluation_page([tmp_path / "coin.json"])


def test_a_chart_becomes_a_picture_without_a_browser(tmp_path):
    spec = curves([{"update": 1, "loss": 2.0}, {"update": 2, "loss": 1.0}], x="update", y="loss")
    with Image.open(picture(spec, tmp_path / "new" / "loss.png", width=300, title="Loss")) as image:
        assert image.format == "PNG" and image.width == 600
        assert len(image.convert("RGB").getcolors(1000)) > 3  # something is drawn
