"""The README's pictures, from what a demo leaves."""

import numpy as np
from PIL import Image

from demo.report_pictures import main
from mmpt_plugin.report.run_log import LOG_FILE, append_record
from tests.report.conftest import crosstask_scores


def test_two_pictures_are_drawn(tmp_path, capsys):
    (tmp_path / "results").mkdir()
    np.savez(tmp_path / "results" / "crosstask_scores.npz", **crosstask_scores())
    for update in (10, 20):
        append_record(tmp_path / LOG_FILE, "step", update, 1, {"text_to_video": 0.1, "video_to_text": 0.2})
    main([str(tmp_path), str(tmp_path / "pictures")])
    drawn = [tmp_path / "pictures" / name for name in ("training.png", "crosstask.png")]
    assert capsys.readouterr().out.split() == [str(path) for path in drawn]
    assert all(Image.open(path).width == 1520 for path in drawn)
