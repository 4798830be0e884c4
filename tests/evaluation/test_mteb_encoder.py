"""A checkpoint as mteb sees it: loaders of texts and of decoders, as its retrieval tasks hand them over."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mmpt_plugin.evaluation.mteb_encoder import MtebEncoder, seconds_of
from mmpt_plugin.features.one_video import open_extractor
from mmpt_plugin.inference import VideoClip

from ..features.video_files import moving_square, write_video


class Decoder:
    """What torchcodec's VideoDecoder gives of pictures (H, W, 3)."""

    def __init__(self, pictures: list[np.ndarray], fps: int) -> None:
        self.pictures = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
        self.metadata = SimpleNamespace(num_frames=len(pictures), end_stream_seconds=len(pictures) / fps)

    def get_frames_at(self, indices: list[int]) -> SimpleNamespace:
        return SimpleNamespace(data=self.pictures[indices])


class Rows(list):
    """A data set of mteb: rows, and the names of their columns."""

    @property
    def features(self) -> dict[str, None]:
        return dict.fromkeys(self[0])


def retrieve(model: MtebEncoder, queries: Rows, corpus: Rows) -> np.ndarray:
    """The stub of a task: what mteb's search asks of an encoder; (queries, 1) best document."""

    def embed(rows: Rows, side: str):
        def refuse(batch: list) -> None:
            raise AssertionError("decoders cannot be collated by default")

        loader = DataLoader(rows, batch_size=2, collate_fn=None if side == "query" else refuse)
        return model.encode(
            loader, task_metadata=None, hf_split="test", hf_subset="default", prompt_type=side, batch_size=2
        )

    return model.similarity(embed(queries, "query"), embed(corpus, "document")).argmax(1).numpy()


@pytest.fixture
def encoder(tiny_model, tiny_bert, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> MtebEncoder:
    """The tiny model, its features made by the grid network."""
    from mmpt_plugin.models.text_backbone import load_tokenizer
    from mmpt_plugin.search import grid_network  # noqa: F401 (registers the network)

    extractor = open_extractor({"network": "grid", "fps": 4, "frame_size": 32})
    clip = VideoClip(tiny_model, load_tokenizer(str(tiny_bert)), {"network": "grid", "fps": 4, "frame_size": 32})
    monkeypatch.setattr(VideoClip, "from_pretrained", lambda *_: clip)
    assert extractor.network.feature_size == tiny_model.video_encoder.feature_projection.input.in_features
    return MtebEncoder(tmp_path / "mine.pt")


def test_a_task_of_mteb(encoder):
    texts = ["cut the onions", "add salt to the pan", "stir a potato"]
    films = [moving_square(30, 64, 48), moving_square(12, 48, 64), moving_square(50, 64, 64)[20:]]
    corpus = Rows({"id": str(i), "video": Decoder(film, 10)} for i, film in enumerate(films))
    best = retrieve(encoder, Rows({"id": str(i), "text": text} for i, text in enumerate(texts)), corpus)
    features = [np.concatenate([encoder.embed(row["video"])]) for row in corpus]
    expected = encoder.clip.encode_text(texts).numpy() @ np.concatenate(features).T
    assert best.tolist() == expected.argmax(1).tolist()
    one, other = torch.randn(2, 3, 5)
    torch.testing.assert_close(encoder.similarity_pairwise(one, other), encoder.similarity(one, other).diagonal())


def test_the_features_are_those_of_the_file(encoder, tmp_path):
    pictures = moving_square(28, 64, 64)
    path = write_video(tmp_path / "a.mp4", pictures, fps=8, options={"crf": "4"})
    from_file = encoder.extractor.extract(path).features.astype(np.float32)
    blocks = list(seconds_of(Decoder(pictures, 8), 4, 32))
    assert [block.shape for block in blocks] == [(4, 32, 32, 3)] * 4 and len(from_file) == 4
    embedded = encoder.extractor.network(torch.from_numpy(np.stack(blocks)))
    cosines = (torch.nn.functional.normalize(embedded, dim=1).numpy() * from_file).sum(1)
    assert (cosines > 0.99).all(), cosines


def test_what_is_refused(encoder):
    with pytest.raises(ValueError, match="a text or a video, one of the two; these have audio, id"):
        encoder.encode(DataLoader(Rows([{"id": "0", "audio": 1}])))
    endless = SimpleNamespace(metadata=SimpleNamespace(num_frames=None, end_stream_seconds=None))
    with pytest.raises(ValueError, match="None pictures and None seconds"):
        next(seconds_of(endless, 4, 32))
