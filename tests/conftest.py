"""Fixtures shared by all tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fairseq import checkpoint_utils
from fairseq.dataclass.initialize import hydra_init
from fairseq_cli.hydra_train import _hydra_main
from hydra import compose, initialize_config_dir
from transformers import BertConfig, BertModel, BertTokenizer

from mmpt_plugin.models.videoclip import VideoClipConfig, VideoClipModel

torch.set_num_threads(1)  # the models of the tests are too small to share

REPOSITORY = Path(__file__).resolve().parents[1]
GOLDEN = REPOSITORY.parent / "shared" / "golden" / "public"
WORDS = ("add", "cut", "the", "onion", "##s", "potato", "##es", "salt", "to", "pan", "stir", "a", "b", "c")


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of reference data made by running the original (see docs/design.md)."""
    if not GOLDEN.is_dir():
        pytest.skip(f"reference data not found at {GOLDEN}: parity with the original is not checked here")
    return GOLDEN


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT folder: 3 layers, 32 wide, random weights, a vocabulary of a few words."""
    folder = tmp_path_factory.mktemp("bert")
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_model(tiny_bert: Path) -> VideoClipModel:
    """A model that starts from the tiny BERT, in evaluation mode."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return VideoClipModel.build_model(VideoClipConfig(bert=str(tiny_bert), video_layers=2)).eval()


@pytest.fixture
def fairseq_train(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`fairseq-hydra-train` in this process: call it with a configuration's name and overrides."""

    def run(config_name: str, *overrides: object) -> None:
        hydra_init(config_name)
        local = [f"common.user_dir={REPOSITORY / 'mmpt_plugin'}", "common.reset_logging=false", "common.cpu=true"]
        with initialize_config_dir(str(REPOSITORY / "projects" / "videoclip"), version_base="1.1"):
            cfg = compose(config_name, [str(override) for override in (*local, *overrides)])
        _hydra_main(cfg)

    for name in ("best", "last_epoch"):  # fairseq keeps these from one run of a process to the next
        monkeypatch.delattr(checkpoint_utils.save_checkpoint, name, raising=False)
    return run
