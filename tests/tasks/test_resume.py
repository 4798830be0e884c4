"""A run that is stopped in the middle of an epoch and started again ends with the weights of one that was not stopped."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmpt_plugin.models.checkpoint import read_checkpoint
from mmpt_plugin.retrieval import cluster_groups

from ..conftest import WholeRun

UPDATES = 6  # of an epoch: 24 videos in groups of 4


def last(folder: Path) -> dict:
    return read_checkpoint(folder / "checkpoint_last.pt")


def assert_same_end(one: Path, other: Path) -> None:
    """Weights, their moving average and the optimizer's state agree to 1e-6."""
    ours, theirs = last(one), last(other)
    assert ours["optimizer_history"][-1]["num_updates"] == theirs["optimizer_history"][-1]["num_updates"]
    assert ours["extra_state"]["train_iterator"]["epoch"] == theirs["extra_state"]["train_iterator"]["epoch"]
    averages = [content["extra_state"].get("ema", {}) for content in (ours, theirs)]
    for one_part, other_part in ((ours["model"], theirs["model"]), averages):
        assert one_part.keys() == other_part.keys()
        for name, value in one_part.items():
            torch.testing.assert_close(value, other_part[name], rtol=0, atol=1e-6, msg=name)
    moments = [content["last_optimizer_state"]["state"] for content in (ours, theirs)]
    for index, state in moments[0].items():
        torch.testing.assert_close(state["exp_avg"], moments[1][index]["exp_avg"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("stop", [2, pytest.param(UPDATES + 5, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "options",
    [
        pytest.param([], id="clusters", marks=pytest.mark.slow),
        pytest.param(["task.retrieval.enabled=false"], id="random"),
        pytest.param(["task.retrieval.every=2"], id="every_2", marks=pytest.mark.slow),
        pytest.param(["dataset.num_workers=2", "dataset.data_buffer_size=2"], id="workers", marks=pytest.mark.slow),
        pytest.param(["dataset.batch_size=2"], id="batches_of_2_groups", marks=pytest.mark.slow),
        pytest.param(["model.chunk_pairs=3"], id="chunks", marks=pytest.mark.slow),
        pytest.param(["model.shared_encoder=true", "model.video_layers=null"], id="shared", marks=pytest.mark.slow),
    ],
)
def test_mid_epoch(
    pretrain: Callable[..., None],
    whole_run: WholeRun,
    losses: list[float],
    tmp_path: Path,
    options: list[str],
    stop: int,
) -> None:
    if "dataset.batch_size=2" in options:
        stop = stop // 2
    whole = whole_run
    if options:
        pretrain(tmp_path / "whole", *options)
        whole = WholeRun(tmp_path / "whole", list(losses))
        losses.clear()
    pretrain(tmp_path / "stopped", f"optimization.max_update={stop}", *options)
    assert last(tmp_path / "stopped")["extra_state"]["train_iterator"]["iterations_in_epoch"] > 0
    pretrain(tmp_path / "stopped", *options)
    assert losses == pytest.approx(whole.losses, abs=1e-6)
    assert_same_end(tmp_path / "stopped", whole.folder)


def test_accumulated_gradients_and_moving_average(
    pretrain: Callable[..., None], losses: list[float], tmp_path: Path
) -> None:
    options = ("optimization.update_freq=[2]", "ema.store_ema=true", "ema.ema_decay=0.9")
    pretrain(tmp_path / "whole", *options)
    whole = list(losses)
    losses.clear()
    pretrain(tmp_path / "stopped", "optimization.max_update=4", *options)  # update 1 of 3 of the second epoch
    assert last(tmp_path / "stopped")["extra_state"]["train_iterator"]["iterations_in_epoch"] == 2
    pretrain(tmp_path / "stopped", *options)
    assert losses == pytest.approx(whole, abs=1e-6) and len(losses) == 2 * UPDATES
    assert_same_end(tmp_path / "stopped", tmp_path / "whole")
    content = last(tmp_path / "whole")
    assert any((content["model"][key] != value).any() for key, value in content["extra_state"]["ema"].items())


@pytest.mark.slow
def test_end_of_an_epoch(
    pretrain: Callable[..., None], whole_run: WholeRun, losses: list[float], tmp_path: Path
) -> None:
    pretrain(tmp_path / "stopped", "optimization.max_epoch=1")
    pretrain(tmp_path / "stopped")
    assert losses == pytest.approx(whole_run.losses, abs=1e-6)
    assert_same_end(tmp_path / "stopped", whole_run.folder)


def test_clusters_of_a_half_done_epoch_come_from_the_checkpoint(
    pretrain: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[int] = []
    original = cluster_groups.embed_videos

    def recording(model, dataset, epoch, **settings):
        embedded.append(epoch)
        return original(model, dataset, epoch, **settings)

    monkeypatch.setattr(cluster_groups, "embed_videos", recording)
    pretrain(tmp_path, "optimization.max_update=2")
    pretrain(tmp_path, "optimization.max_update=4")
    assert embedded == [1]
    pretrain(tmp_path)
    assert embedded == [1, 2]
    pretrain(tmp_path)  # nothing is left to do
    assert embedded == [1, 2]


def test_the_rest_of_an_epoch_with_reused_embeddings(
    pretrain: Callable[..., None], losses: list[float], tmp_path: Path
) -> None:
    options = ("task.retrieval.embeddings=reuse", "optimization.max_epoch=1")
    pretrain(tmp_path / "whole", *options)
    whole = list(losses)
    losses.clear()
    pretrain(tmp_path / "stopped", "optimization.max_update=2", *options)
    pretrain(tmp_path / "stopped", *options)
    assert losses == pytest.approx(whole, abs=1e-6)
    assert_same_end(tmp_path / "stopped", tmp_path / "whole")


def test_another_list_of_videos(
    pretrain: Callable[..., None], losses: list[float], tiny_data: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    train = data / "howto100m" / "train.txt"
    pretrain(tmp_path / "run", f"task.data={data}", "optimization.max_update=2")
    train.write_text("\n".join(train.read_text().split()[:-1]))
    losses.clear()
    with pytest.raises(ValueError, match=r"another list of training videos .* set checkpoint\.reset_dataloader=true"):
        pretrain(tmp_path / "run", f"task.data={data}")
    assert losses == []
    pretrain(tmp_path / "run", f"task.data={data}", "checkpoint.reset_dataloader=true", "optimization.max_update=4")
    assert len(losses) == 2


def test_another_list_of_validation_videos(pretrain: Callable[..., None], tiny_data: Path, tmp_path: Path) -> None:
    data = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    val = data / "howto100m" / "val.txt"
    options = [f"task.data={data}", "task.retrieval.enabled=false"]
    pretrain(tmp_path / "run", *options, "optimization.max_update=1")
    val.write_text("\n".join(val.read_text().split()[:-1]))
    with pytest.raises(ValueError, match=r"val\.txt names other videos .* checkpoint\.reset_meters=true"):
        pretrain(tmp_path / "run", *options, "optimization.max_update=2")
    pretrain(tmp_path / "run", *options, "optimization.max_update=2", "checkpoint.reset_meters=true")
    pretrain(tmp_path / "run", *options, "optimization.max_update=3")  # the new list is the run's by now


@pytest.mark.slow
def test_another_size_of_groups(pretrain: Callable[..., None], losses: list[float], tmp_path: Path) -> None:
    pretrain(tmp_path, "optimization.max_update=2")
    losses.clear()
    with pytest.raises(ValueError, match=r"with 6 groups of 4 videos; now an epoch has 4 groups of 6: restore task\."):
        pretrain(tmp_path, "task.videos_per_batch=6")
    assert losses == []
