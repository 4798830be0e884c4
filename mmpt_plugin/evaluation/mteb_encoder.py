"""A checkpoint as a model of `mteb`, so that its numbers can stand beside those of today's models.

    import mteb
    from mmpt_plugin.evaluation.mteb_encoder import MtebEncoder
    model = MtebEncoder("checkpoint_best.pt", network="s3d:s3d_howto100m.pth")
    mteb.evaluate(model, mteb.get_tasks(["YouCook2T2VRetrieval", "MSRVTTT2V", "DiDeMoT2VRetrieval"]))

mteb hands over texts, and videos as decoders of torchcodec. Features are made of these as extraction makes them of files,
but for the decoder and the filter that scales pictures.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from tqdm import tqdm

from mmpt_plugin.extras import naming_extras
from mmpt_plugin.features.one_video import embed_blocks, open_extractor
from mmpt_plugin.inference import VideoClip
from mmpt_plugin.models.checkpoint import sha256
from mmpt_plugin.models.similarity import similarity


class MtebEncoder:
    """Embeds mteb's texts and videos (`mteb.models.EncoderProtocol`).

    Args:
        model_name: the checkpoint, exported folder or hub name; as for `VideoClip.from_pretrained`.
        revision: stands beside the name in mteb's results; default: the beginning of the file's SHA-256.
        device: where to compute.
        network: feature network with its files, where the checkpoint's settings do not say where these are.
        bert: as for `VideoClip.from_pretrained`.
    """

    def __init__(
        self,
        model_name: str | Path,
        revision: str | None = None,
        *,
        device: str | None = None,
        network: str | None = None,
        bert: str | None = None,
    ) -> None:
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.clip = VideoClip.from_pretrained(model_name, bert, device)
        self.extractor = open_extractor(self.clip.feature_settings, network, device)
        path = Path(model_name)
        self.name = f"mmpt_plugin/{path.stem}"
        self.revision = revision or (sha256(path)[:12] if path.is_file() else None)

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any = None,
        hf_split: str = "",
        hf_subset: str = "",
        prompt_type: Any = None,
        **options: Any,
    ) -> NDArray[np.float32]:
        """Embeds what a loader of mteb gives.

        Args:
            inputs: a DataLoader whose items have a `text` or a `video`.
            task_metadata, hf_split, hf_subset, prompt_type: of the task; nothing hangs on them.
            options: `batch_size` and `show_progress_bar` are read.

        Returns:
            (items, D).

        Raises:
            ValueError: for items that have both, or neither.
        """
        columns = {"text", "video"} & set(inputs.dataset.features)
        if len(columns) != 1:
            found = ", ".join(sorted(inputs.dataset.features))
            raise ValueError(f"items must have a text or a video, one of the two; these have {found}")
        batches = tqdm(inputs, desc="mteb", unit="batch", disable=not options.get("show_progress_bar", False))
        if "text" in columns:
            texts = [text for batch in batches for text in batch["text"]]
            return np.asarray(self.clip.encode_text(texts, options.get("batch_size", 128), convert_to_numpy=True))
        inputs.collate_fn = as_they_are  # decoders, one video's pictures in memory at a time
        vectors = [self.embed(video) for batch in batches for video in batch["video"]]
        return np.concatenate(vectors) if vectors else np.zeros((0, self.width), np.float32)

    def embed(self, video: Any) -> NDArray[np.float32]:
        """(1, D) of a decoder."""
        blocks = seconds_of(video, self.extractor.fps, self.extractor.frame_size)
        features = embed_blocks(blocks, self.extractor.network, self.extractor.batch_seconds)
        return np.asarray(self.clip.encode_video(features=[features], convert_to_numpy=True))

    @property
    def width(self) -> int:
        """D."""
        return int(self.clip.model.video_encoder.transformer.config.hidden_size)

    def similarity(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> Tensor:
        """(first, second): what the model is trained by."""
        return similarity(torch.as_tensor(embeddings1), torch.as_tensor(embeddings2))

    def similarity_pairwise(self, embeddings1: ArrayLike, embeddings2: ArrayLike) -> Tensor:
        """Dot products of rows with rows, (rows,)."""
        return (torch.as_tensor(embeddings1) * torch.as_tensor(embeddings2)).sum(-1)

    @property
    def mteb_model_meta(self) -> Any:
        """What mteb's results say of the model."""
        with naming_extras("mteb", "a model of mteb"):
            from mteb.models.model_meta import ModelMeta, ScoringFunction

        parameters = sum(parameter.numel() for parameter in self.clip.model.parameters())
        return ModelMeta(
            loader=type(self),
            name=self.name,
            revision=self.revision,
            release_date=None,
            languages=["eng-Latn"],
            n_parameters=parameters,
            memory_usage_mb=parameters * 4 / 2**20,
            max_tokens=self.clip.model.text_encoder.max_pieces,
            embed_dim=self.width,
            license=None,
            open_weights=False,
            public_training_code=None,
            public_training_data=None,
            framework=["PyTorch"],
            similarity_fn_name=ScoringFunction.DOT_PRODUCT,
            use_instructions=False,
            training_datasets=None,
            modalities=["text", "video"],
        )


def as_they_are(rows: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """A batch of a loader: the rows' values as lists."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def seconds_of(video: Any, fps: int, size: int) -> Iterator[np.ndarray]:
    """The seconds of a decoder as extraction gives them: `fps` pictures each, scaled and cut to their middle.

    Args:
        video: has `metadata.num_frames`, `metadata.end_stream_seconds` and `get_frames_at(indices).data`, uint8
            (n, 3, H, W), as torchcodec's VideoDecoder.
        fps: pictures a second; of slower videos they repeat. What the last second lacks is black.
        size: side of the pictures.

    Yields:
        uint8 (fps, size, size, 3).

    Raises:
        ValueError: if the decoder states no length.
    """
    count, length = video.metadata.num_frames, video.metadata.end_stream_seconds
    if not count or not length:
        raise ValueError(f"a video states {count} pictures and {length} seconds: its features cannot be made")
    for second in range(max(1, math.ceil(length - 1 / fps))):
        times = second + np.arange(fps) / fps
        places = np.minimum(np.rint(times[times < length] * count / length), count - 1).astype(int).tolist()
        block = np.zeros((fps, size, size, 3), np.uint8)
        block[: len(places)] = _scaled(video.get_frames_at(places).data, size)
        yield block


def _scaled(pictures: Tensor, size: int) -> np.ndarray:
    """Maps uint8 (n, 3, H, W) to (n, size, size, 3): short side to `size`, then the middle."""
    height, width = pictures.shape[-2:]
    scale = size / min(height, width)
    shape = (max(size, round(height * scale)), max(size, round(width * scale)))
    scaled = F.interpolate(pictures.float(), shape, mode="bicubic", antialias=True).clamp(0, 255).round().byte()
    top, left = (shape[0] - size) // 2, (shape[1] - size) // 2
    return scaled[..., top : top + size, left : left + size].permute(0, 2, 3, 1).cpu().numpy()
