"""The YAML files: each composes, shows its run, sets every key in one place only, and agrees with the dataclasses.

A file of difference/, listed last, is what tells an ablation from pre-training. It alone may set a key again.
"""

from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path

import pytest
import yaml
from fairseq.dataclass.configs import FairseqConfig
from fairseq.dataclass.initialize import add_defaults
from omegaconf import MISSING, OmegaConf

from demo.tasks.demo import VideoClipDemoConfig
from mmpt_plugin.evaluation.benchmarks import BENCHMARKS
from mmpt_plugin.models.fairseq_model import FairseqVideoClipConfig
from mmpt_plugin.tasks.finetuning import VideoClipFinetuningConfig
from mmpt_plugin.tasks.own_videos import OwnVideosConfig
from mmpt_plugin.tasks.pretraining import VideoClipPretrainingConfig
from mmpt_plugin.tasks.zeroshot import VideoClipZeroShotConfig

FOLDER = Path(__file__).resolve().parents[1] / "projects" / "videoclip"
PRIMARIES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
ABLATIONS = [
    f"ablation_{row}"
    for row in (
        "no_retrieval",
        "no_retrieval_no_overlap",
        "mil_nce",
        "shared_encoder",
        "retrieve_k",
        "first_32s",
        "cls_pooling",
    )
]
GIVEN = {  # what a user must give
    "task.data": "DATA",
    "model.bert": "BERT",
    "task.videos": "VIDEOS",
    "task.results_path": "OUT",
    "checkpoint.save_dir": "RUN",
    "checkpoint.restore_file": "CKPT",
    "checkpoint.finetune_from_model": "CKPT",
}
TASKS = {
    "videoclip_pretraining": VideoClipPretrainingConfig,
    "videoclip_demo": VideoClipDemoConfig,
    "videoclip_zeroshot": VideoClipZeroShotConfig,
    "videoclip_finetuning": VideoClipFinetuningConfig,
    "own_videos": OwnVideosConfig,
}


def load(name: str) -> dict:
    return yaml.safe_load((FOLDER / f"{name}.yaml").read_text())


def parts_of(name: str) -> list[tuple[str, dict]]:
    """The files of a composition with the tree of keys that each sets, its place in the whole applied."""
    content = load(name)
    parts = []
    for entry in content.pop("defaults", []):
        if entry == "_self_":
            continue
        part = "/".join(next(iter(entry.items()))) if isinstance(entry, dict) else entry
        folder = Path(name).parent
        parts += parts_of(part if (FOLDER / f"{part}.yaml").is_file() else str(folder / part))
    is_global = (FOLDER / f"{name}.yaml").read_text().startswith("# @package _global_") or "/" not in name
    return [*parts, (name, content if is_global else {name.split("/")[0]: content})]


def leaves(tree: dict, prefix: str = "") -> dict[str, object]:
    """Dotted key -> value."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        flat |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


@pytest.fixture(scope="module")
def composed(compose_run):
    """A configuration with all defaults, its required keys given."""

    @cache
    def compose(name: str, *overrides: str):
        required = {key for _, tree in parts_of(name) for key, value in leaves(tree).items() if value == MISSING}
        cfg = compose_run(name, *(f"{key}={GIVEN[key]}" for key in required), *overrides)
        add_defaults(cfg)
        return cfg

    return compose


def test_every_promised_configuration_is_there():
    promised = {"demo", "pretrain", *(f"zeroshot_{name}" for name in BENCHMARKS), *ABLATIONS}
    assert promised <= set(PRIMARIES)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", PRIMARIES)
def test_it_composes_and_every_key_arrives(name, composed):
    cfg = composed(name)
    resolved = leaves(OmegaConf.to_container(cfg, resolve=True, enum_to_str=True))
    wanted: dict[str, tuple[str, object]] = {}
    for part, tree in sorted(parts_of(name), key=lambda part: part[0].startswith("difference/")):  # these win
        wanted |= {key: (part, value) for key, value in leaves(tree).items()}
    for key, (part, value) in wanted.items():
        if key.startswith("hydra.") or key == "common.user_dir" or value == MISSING or "${" in str(value):
            continue
        assert resolved[key] == value, f"{key} of {part}.yaml"


@pytest.mark.parametrize("name", PRIMARIES)
def test_no_key_is_set_in_two_files(name):
    owner: dict[str, str] = {}
    for part, tree in parts_of(name):
        for key in leaves(tree) if not part.startswith("difference/") else ():
            assert key not in owner, f"{key} is set in {owner[key]}.yaml and {part}.yaml"
            owner[key] = part


@pytest.mark.parametrize("name", PRIMARIES)
def test_one_file_shows_one_run(name):
    """At most two files stand behind it, and it opens with what a reader wants to know first."""
    assert len(parts_of(name)) <= 3
    opening = (FOLDER / f"{name}.yaml").read_text().partition("defaults:")[0]
    for word in ("# Needs:", f"# Run:      fairseq-hydra-train --config-dir projects/videoclip --config-name {name}",
                 "# Cost:", "# Expected:"):  # fmt: skip
        assert word in opening, word


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", PRIMARIES)
def test_every_run_stays_where_the_user_is_and_keeps_its_last_items(name, compose_run):
    cfg = OmegaConf.to_container(compose_run(name, return_hydra_config=True))
    assert cfg["hydra"]["run"]["dir"] == "${checkpoint.save_dir}" and cfg["hydra"]["job"]["chdir"] is False
    user_dirs = [leaves(tree).get("common.user_dir", "") for _, tree in parts_of(name)]
    folder = "demo" if name == "demo" else "mmpt_plugin"
    assert any(path.endswith(f"config_sources.2.path}}/../../{folder}") for path in user_dirs)
    assert cfg["checkpoint"]["load_checkpoint_on_all_dp_ranks"] is True
    assert cfg["dataset"]["required_batch_size_multiple"] == 1


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_differs_from_pretraining_in_its_difference_alone(name, composed):
    own, full = (leaves(OmegaConf.to_container(composed(x), enum_to_str=True)) for x in (name, "pretrain"))
    changed = {key for key in own.keys() | full.keys() if own.get(key) != full.get(key)}
    parts = [leaves(tree) for part, tree in parts_of(name) if part.startswith("difference/")]
    assert changed == {key for part in parts for key in part}
    assert not load(name).keys() - {"defaults"}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_difference_can_be_put_on_the_demo(composed):
    cfg = composed("demo", "+difference=mil_nce")
    assert (cfg.criterion._name, cfg.task.clip_sampling, cfg.task.max_clip_seconds) == ("mil_nce", "bag", 3)
    assert not cfg.task.retrieval.enabled and cfg.task.videos_per_batch == 16


def known_keys(config: type) -> set[str]:
    """Dotted names of a dataclass's fields, nested ones included."""
    keys = set()
    for field in fields(config):
        nested = field.type if is_dataclass(field.type) else None
        keys |= {f"{field.name}.{key}" for key in known_keys(nested)} if nested else {field.name}
    return keys


@pytest.mark.parametrize("name", PRIMARIES)
def test_keys_exist_in_the_dataclasses(name):
    trees = [tree for _, tree in parts_of(name)]
    task = next(tree["task"]["_name"] for tree in trees if "_name" in tree.get("task", {}))
    for tree in trees:
        assert leaves(tree.get("task", {})).keys() <= known_keys(TASKS[task])
        assert leaves(tree.get("model", {})).keys() <= known_keys(FairseqVideoClipConfig)
        assert tree.keys() - {"hydra"} <= {field.name for field in fields(FairseqConfig)}


def own_keys(config: type, prefix: str) -> set[str]:
    """Dotted names of the settings that a user gives: not those that fairseq's interpolations fill."""
    defaults = leaves(OmegaConf.to_container(OmegaConf.structured(config), resolve=False, enum_to_str=True))
    return {
        f"{prefix}.{key}" for key, value in defaults.items() if "${" not in str(value) and not key.endswith("_name")
    }


@pytest.mark.parametrize("name", PRIMARIES)
def test_every_setting_of_the_task_is_listed(name):
    """Hydra takes a setting that no file lists only with a plus sign in front."""
    listed = {key for _, tree in parts_of(name) for key in leaves(tree)}
    task = next(tree["task"]["_name"] for _, tree in parts_of(name) if "_name" in tree.get("task", {}))
    assert own_keys(TASKS[task], "task") <= listed
    if task in ("videoclip_pretraining", "videoclip_demo"):
        assert (
            own_keys(FairseqVideoClipConfig, "model") - {"model.frame_labels"} <= listed
        )  # only fine-tuning has labels


def test_defaults_are_the_papers():
    paper = leaves(load("pretrain"))
    for group, config in (("task", VideoClipPretrainingConfig), ("model", FairseqVideoClipConfig)):
        defaults = leaves(OmegaConf.to_container(OmegaConf.structured(config), resolve=False, enum_to_str=True))
        for key, value in defaults.items():
            if f"{group}.{key}" in paper and value != MISSING and key != "_name":
                assert paper[f"{group}.{key}"] == value, key


@pytest.mark.parametrize(
    ("name", "epochs", "batch", "repeats", "criterion", "direction"),
    [
        ("youcook2", 10, 128, 1, "directed_contrastive", "text_to_video"),
        ("msrvtt", 10, 224, 20, "directed_contrastive", "text_to_video"),
        ("msrvtt_qa", 5, 128, 20, "directed_contrastive", "video_to_text"),
        ("crosstask", 5, 1, 1, "step_binary_cross_entropy", None),
        ("coin", 8, 1, 1, "frame_cross_entropy", None),
    ],
)
def test_the_originals_fine_tuning(name, epochs, batch, repeats, criterion, direction, composed):
    cfg = composed(f"finetune_{name}")
    assert cfg.task.repeats == repeats
    assert (cfg.task.benchmark, cfg.optimization.max_epoch, cfg.dataset.batch_size) == (name, epochs, batch)
    assert (cfg.criterion._name, cfg.criterion.get("direction")) == (criterion, direction)
    assert (cfg.optimization.lr[0], cfg.optimization.clip_norm, cfg.lr_scheduler.warmup_updates) == (5e-5, 2.0, 122)
    assert (cfg.optimizer._name, cfg.optimizer.weight_decay, list(cfg.optimization.update_freq)) == ("adam", 0.0, [1])


def test_the_papers_recipe(composed):
    cfg = composed("pretrain")
    assert cfg.task.videos_per_batch * cfg.task.clips_per_video == 512
    assert (cfg.optimization.lr[0], cfg.optimization.clip_norm, cfg.optimization.max_epoch) == (5e-5, 2.0, 25)
    assert (cfg.lr_scheduler.warmup_updates, cfg.lr_scheduler.total_num_update) == (1000, 1_000_000)
    assert (cfg.optimizer.adam_betas, cfg.optimizer.weight_decay, cfg.common.fp16) == ("(0.9,0.98)", 0.0, True)
    assert cfg.task.retrieval.enabled and cfg.task.retrieval.num_neighbors == 64
