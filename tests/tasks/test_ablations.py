"""Every row of the paper's ablation trains from its own configuration, and its checkpoint can be evaluated."""

import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt_plugin import VideoClip
from mmpt_plugin.criterions import mil_nce
from mmpt_plugin.evaluation.results import read_results
from mmpt_plugin.retrieval.cluster_groups import ClusterGroups

SENTENCES = ["add the onions", "cut the potatoes", "stir the pan"]
SEGMENTS = [[0, 5], [3, 40], [50, 60]]
ROWS = {  # name -> overrides that make it fit the tiny BERT of 3 layers and the tiny videos of 2 captions
    "no_retrieval": [],
    "no_retrieval_no_overlap": [],
    "mil_nce": ["task.bag_captions=2"],
    "shared_encoder": ["model.video_layers=null"],
    "retrieve_k": [],
    "first_32s": [],
    "cls_pooling": [],
}
SLOW = ("no_retrieval", "no_retrieval_no_overlap", "retrieve_k", "first_32s")  # settings that other tests cover


@pytest.fixture(scope="module")
def youcook2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder whose youcook2 has three clips of one video."""
    folder = tmp_path_factory.mktemp("data") / "youcook2"
    (folder / "features").mkdir(parents=True)
    features = np.random.default_rng(0).standard_normal((60, 512)).astype(np.float16)
    np.save(folder / "features" / "one.npy", features)
    annotations = [{"segment": segment, "sentence": text} for segment, text in zip(SEGMENTS, SENTENCES)]
    records = [{"id": f"one_{i}", "caption": ""} for i in range(len(SENTENCES))]
    (folder / "youcook_val.pkl").write_bytes(pickle.dumps(records))
    database = {"database": {"one": {"annotations": annotations}}}
    (folder / "youcookii_annotations_trainval.json").write_text(json.dumps(database))
    return folder.parent


@pytest.fixture
def train(fairseq_train: Callable[..., None], tiny_settings: tuple[str, ...], tmp_path: Path) -> Callable[..., Path]:
    """Trains a row for two updates; gives its checkpoint."""

    def run(name: str, *overrides: str) -> Path:
        settings = (*tiny_settings, *ROWS[name], "optimization.max_update=2", f"checkpoint.save_dir={tmp_path / 'run'}")
        fairseq_train(f"ablation_{name}", *settings, *overrides)
        return tmp_path / "run" / "checkpoint_last.pt"

    return run


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in ROWS])
def test_it_trains_and_its_checkpoint_is_evaluated(
    name: str, train: Callable[..., Path], fairseq_train: Callable[..., None], youcook2: Path, tmp_path: Path
) -> None:
    checkpoint = train(name)
    assert math.isfinite(torch.load(checkpoint, weights_only=True)["extra_state"]["val_loss"])
    fairseq_train(
        "zeroshot_youcook2",
        f"task.data={youcook2}",
        f"task.results_path={tmp_path / 'results'}",
        f"checkpoint.restore_file={checkpoint}",
        "dataset.num_workers=0",
    )
    results = read_results(tmp_path / "results" / "youcook2.json")
    assert results["counts"]["queries"] == 3 and 0 <= results["metrics"]["R@1"] <= 1
    assert results["config"]["model"]["shared_encoder"] == (name == "shared_encoder")
    assert results["config"]["model"]["pooling"] == ("cls" if name == "cls_pooling" else "mean")
    clip = VideoClip.from_pretrained(checkpoint)
    features = np.load(youcook2 / "youcook2" / "features" / "one.npy")
    video = clip.encode_video([features[start : min(end, start + 32)] for start, end in SEGMENTS])
    saved = np.load(tmp_path / "results" / "youcook2_scores.npz")["similarities"]
    np.testing.assert_allclose(saved, clip.encode_text(SENTENCES) @ video.T, atol=1e-4)


@pytest.mark.parametrize(
    "retrieval",
    [
        pytest.param(["task.retrieval.enabled=true"], marks=pytest.mark.slow),
        ["task.retrieval.enabled=true", "task.retrieval.embeddings=reuse"],
    ],
)
def test_bags_go_with_clusters(
    train: Callable[..., Path],
    retrieval: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two epochs, in groups joined two by two: 2 x 4 videos x 2 clips with bags of 2."""
    shapes, original = [], mil_nce.mil_nce

    def recording(video: torch.Tensor, text: torch.Tensor, *others: object) -> torch.Tensor:
        shapes.append((len(video), len(text), video.requires_grad))
        return original(video, text, *others)

    clustered, form = [], ClusterGroups._cluster

    def clustering(groups: ClusterGroups, vectors: np.ndarray, epoch: int, seconds: float) -> np.ndarray:
        clustered.append(epoch)
        return form(groups, vectors, epoch, seconds)

    monkeypatch.setattr(mil_nce, "mil_nce", recording)
    monkeypatch.setattr(ClusterGroups, "_cluster", clustering)
    train("mil_nce", *retrieval, "dataset.batch_size=2", "optimization.max_update=6")
    assert [shape[:2] for shape in shapes if shape[2]] == [(16, 32)] * 6
    assert clustered == [1, 2]


# --- what is refused ---


def test_a_bag_larger_than_a_videos_captions(train: Callable[..., Path]) -> None:
    with pytest.raises(
        ValueError, match=r"listed videos have .* fewer than the 9 captions of a bag \(task\.bag_captions .*\): val00, "
    ):
        train("mil_nce", "task.bag_captions=9")
    with pytest.raises(ValueError, match=r"task\.bag_captions is 0: it must be at least 1"):
        train("mil_nce", "task.bag_captions=0")


def test_bags_with_a_loss_for_pairs(train: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"task\.clip_sampling=bag needs criterion=mil_nce"):
        train("mil_nce", "criterion._name=video_text_contrastive")


def test_a_shared_encoder_with_fewer_layers_for_video(train: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=r"model\.shared_encoder=true makes both towers one transformer"):
        train("shared_encoder", "model.video_layers=2")
