"""VideoCLIP in a few lines: load a checkpoint, embed texts and videos, compare them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from mmpt_plugin.data.inputs import batches_by_length, join_texts, tokenize
from mmpt_plugin.data.pairs import SpecialTokens
from mmpt_plugin.data.windows import sliding_windows, whole_seconds
from mmpt_plugin.extras import naming_extras
from mmpt_plugin.models.checkpoint import feature_settings, fine_tuned_on, read_checkpoint
from mmpt_plugin.models.config import VideoClipConfig
from mmpt_plugin.models.exported import HUB_NAME, download, read_folder
from mmpt_plugin.models.loading import checkpoint_config, model_of_checkpoint
from mmpt_plugin.models.text_backbone import load_tokenizer
from mmpt_plugin.models.videoclip import VideoClipModel

if TYPE_CHECKING:
    from mmpt_plugin.features.one_video import FeatureExtractor


class VideoClip:
    """Embeds texts and videos with a pre-trained model.

    Example:
        >>> clip = VideoClip.from_pretrained("runs/demo/checkpoint_best.pt")  # doctest: +SKIP
        >>> similarities = clip.encode_text(["add the onions"]) @ clip.encode_video(features=[x]).T  # doctest: +SKIP

    Attributes:
        model: the `VideoClipModel`, in evaluation mode.
        tokenizer: its tokenizer.
        feature_settings: how the features were made that the model was trained on; None where its checkpoint does not say.
        config: the settings that the model was made with, where it was loaded.
        checkpoint: where it was loaded from.
        fine_tuned_on: the benchmark that it was fine-tuned on, if its checkpoint says so.
    """

    def __init__(
        self,
        model: VideoClipModel,
        tokenizer: PreTrainedTokenizerBase,
        feature_settings: Mapping[str, Any] | None = None,
        config: VideoClipConfig | None = None,
        checkpoint: Path | None = None,
        fine_tuned_on: str | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.feature_settings = feature_settings
        self.config = config
        self.checkpoint = checkpoint
        self.fine_tuned_on = fine_tuned_on
        self._extractors: dict[str | None, FeatureExtractor] = {}

    @classmethod
    def from_pretrained(
        cls, checkpoint: str | Path, bert: str | None = None, device: str | torch.device = "cpu"
    ) -> VideoClip:
        """Load a model.

        Args:
            checkpoint: a `.pt` file, ours or MMPT's; a folder that `mmpt-export` wrote; or the name of one on the hub.
            bert: folder or hub name of its BERT (configuration and tokenizer; no weights are needed). By default the
                copy beside our checkpoint, or `bert-base-uncased` for MMPT's.
            device: where to compute.

        Raises:
            FileNotFoundError, ValueError: if it is missing, unsafe to load, damaged, or does not fit.
        """
        path = Path(checkpoint)
        if not path.exists() and path.suffix != ".pt" and HUB_NAME.fullmatch(str(checkpoint)):
            path = download(str(checkpoint))
        if path.is_dir():
            if bert:
                raise ValueError(f"bert={bert!r}: the folder {path} has its own tokenizer, so that none can be given")
            own = read_folder(path)
            tuned = own.origin.get("fine_tuned_on")
            return cls(own.model.to(device), own.tokenizer, own.features, own.config, path, tuned)
        content = read_checkpoint(path, "checkpoint")
        cfg = checkpoint_config(path, content, bert)
        model = model_of_checkpoint(path, content, cfg)
        settings, tuned = feature_settings(content), fine_tuned_on(content)
        return cls(model.to(device), load_tokenizer(cfg.bert), settings, cfg, path, tuned)

    @torch.no_grad()
    def encode_text(
        self,
        texts: str | Iterable[str],
        batch_size: int = 128,
        *,
        normalize: bool = False,
        convert_to_numpy: bool = False,
        show_progress_bar: bool = False,
    ) -> Tensor | NDArray[np.float32]:
        """Embed texts of any length; word pieces past the model's longest are cut.

        Args:
            texts: one text, or a list, array or pandas Series of texts.
            batch_size: texts encoded at once.
            normalize: scale embeddings to length 1, so that dot products are cosines. A model that was trained so
                (`model.normalize`) gives no others; the paper's was trained without.
            convert_to_numpy: give a numpy array instead of a tensor on the model's device.
            show_progress_bar: show a bar on standard error.

        Returns:
            (N, D) float32; (1, D) for one text.

        Raises:
            ValueError: for an item that is no text, naming its position; for a batch size below 1.
        """
        pieces = tokenize(self.tokenizer, _as_texts(texts), self.model.text_encoder.max_pieces)
        lengths = np.array([len(piece) for piece in pieces], np.int64)
        special = SpecialTokens.of(self.tokenizer)
        embeddings = self._empty(len(pieces))
        for batch in _with_bar(batches_by_length(lengths, _checked_size(batch_size)), "texts", show_progress_bar):
            text = join_texts([pieces[index] for index in batch], special)
            embeddings[batch] = self.model.embed_texts(text["text_ids"].to(self._device), text["text_lengths"]).float()
        return _finished(embeddings, normalize or self.model.normalize, convert_to_numpy)

    @torch.no_grad()
    def encode_video(
        self,
        features: Iterable[ArrayLike | Tensor] | None = None,
        batch_size: int = 128,
        *,
        videos: str | Path | Sequence[str | Path] | None = None,
        network: str | None = None,
        normalize: bool = False,
        convert_to_numpy: bool = False,
        show_progress_bar: bool = False,
    ) -> Tensor | NDArray[np.float32]:
        """Embed videos of any length, given as features or as files.

        Args:
            features: one array or tensor (rows, feature_size) a video, of any floating type, one row a second, or as many
                as the model's `features_per_second`. Longer ones than the model takes are covered by windows that overlap
                by half, whose embeddings are averaged.
            batch_size: windows encoded at once.
            videos: files, instead of features; see `extract_features`.
            network: what makes the files' features; see `extract_features`.
            normalize, convert_to_numpy, show_progress_bar: as for `encode_text`.

        Returns:
            (N, D) float32.

        Raises:
            ValueError: for another shape, values that are not finite, or rows that are not of length 1 where those of the
                training were; for a batch size below 1; for what `extract_features` refuses.
            FileNotFoundError: if a video or the network's weights are missing.
        """
        if (features is None) == (videos is None):
            raise ValueError("encode_video takes features=[...] or videos=[...], one of the two")
        if features is None:
            features = self.extract_features(videos or [], network)
        longest, rate = self.model.video_encoder.max_seconds, self.model.video_encoder.features_per_second
        size = self.model.video_encoder.feature_projection.input.in_features
        arrays = [self._checked(video, position, size) for position, video in enumerate(features)]
        windows = [
            (position, start * rate, min(end * rate, len(video)))
            for position, video in enumerate(arrays)
            for start, end in sliding_windows(int(whole_seconds(np.array(len(video)), rate)), longest) or [(0, 0)]
        ]
        lengths = np.array([end - start for _, start, end in windows], np.int64)
        embeddings, count = self._empty(len(arrays)), torch.zeros(len(arrays), 1, device=self._device)
        for batch in _with_bar(batches_by_length(lengths, _checked_size(batch_size)), "windows", show_progress_bar):
            rows = [arrays[position][start:end] for position, start, end in (windows[index] for index in batch)]
            seconds = torch.from_numpy(np.concatenate(rows)).to(self._device)
            encoded = self.model.embed_videos(seconds, lengths[batch]).float()
            owner = torch.tensor([windows[index][0] for index in batch], device=self._device)
            embeddings.index_add_(0, owner, encoded)
            count.index_add_(0, owner, torch.ones(len(batch), 1, device=self._device))
        return _finished(embeddings / count, normalize or self.model.normalize, convert_to_numpy)

    def extract_features(
        self, videos: str | Path | Sequence[str | Path], network: str | None = None
    ) -> list[np.ndarray]:
        """The features of video files, made as those were that the model was trained on.

        Args:
            videos: files of any format that extraction reads; one path counts as a list of one.
            network: the feature network with its files: "s3d:FILE" or "hf:FOLDER". By default what the checkpoint's
                settings name, which suffices where that names its files too (hub names, networks registered by oneself,
                s3d's public file in torch's folder of downloads).

        Returns:
            One array (rows, feature_size) float16 a video, `model.features_per_second` rows a second.

        Raises:
            ValueError: if a file is no video, or the network is unknown or another than the model was trained with.
            FileNotFoundError: if a video or the network's weights are missing.
            MissingExtra: without PyAV.
        """
        with naming_extras("prepare", "a video file"):
            from mmpt_plugin.features.one_video import open_extractor
        if network not in self._extractors:
            rate = self.model.video_encoder.features_per_second
            extractor = open_extractor(self.feature_settings, network, str(self._device), rate)
            size, wanted = extractor.network.feature_size, self.model.video_encoder.feature_projection.input.in_features
            if size != wanted:
                raise ValueError(
                    f"the network {extractor.network.name} makes features of size {size}, and the model takes {wanted}"
                )
            self._extractors[network] = extractor
        paths = [videos] if isinstance(videos, str | Path) else videos
        return [self._extractors[network].extract(path).features for path in paths]

    def _checked(self, given: Any, position: int, size: int) -> NDArray[np.float32]:
        """A video's features in float32."""
        video = np.asarray(given.float().cpu() if torch.is_tensor(given) else given)  # numpy knows no bfloat16
        if video.dtype.kind not in "fiu":
            raise ValueError(f"features[{position}] holds {video.dtype}; numbers are needed, (seconds, {size})")
        if video.ndim != 2 or video.shape[1] != size:
            raise ValueError(
                f"features[{position}] has shape {video.shape}; (seconds, {size}) is needed, one row a second"
            )
        if not np.isfinite(video).all():
            raise ValueError(f"features[{position}] holds NaN or infinite values")
        video = video.astype(np.float32)
        if (self.feature_settings or {}).get("normalisation") == "l2" and len(video):
            lengths = np.linalg.norm(video, axis=1)
            other = np.flatnonzero((np.abs(lengths - 1) > 0.01) & (lengths > 0))
            if len(other):
                raise ValueError(
                    f"features[{position}] has rows of other lengths than 1 ({lengths[other[0]]:.3g} in row {other[0]}), but "
                    "the model was trained on L2-normalised features: divide each row by its norm"
                )
        return video

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _empty(self, rows: int) -> Tensor:
        return torch.zeros(rows, self.model.video_encoder.transformer.config.hidden_size, device=self._device)


def _as_texts(texts: str | Iterable[str]) -> list[str]:
    if isinstance(texts, str):
        return [texts]
    listed = list(texts)
    for position, text in enumerate(listed):
        if not isinstance(text, str):
            raise ValueError(f"texts[{position}] is {text!r}, which is no text: leave it out or make it a string")
    return [str(text) for text in listed]  # numpy's strings too


def _checked_size(batch_size: int) -> int:
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: it must be at least 1")
    return batch_size


def _with_bar(batches: list[NDArray[np.int64]], what: str, shown: bool) -> Iterator[NDArray[np.int64]]:
    """The batches, with a bar that counts what is in them."""
    with tqdm(total=sum(map(len, batches)), unit=f" {what}", disable=not shown) as bar:
        for batch in batches:
            yield batch
            bar.update(len(batch))


def _finished(embeddings: Tensor, normalize: bool, convert_to_numpy: bool) -> Tensor | NDArray[np.float32]:
    if normalize:
        embeddings = torch.nn.functional.normalize(embeddings, dim=1)
    return embeddings.cpu().numpy() if convert_to_numpy else embeddings
