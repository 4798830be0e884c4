"""A checkpoint as a folder to share: safetensors, config.json, tokenizer and a model card.

    mmpt-export runs/demo/checkpoint_best.pt my-model --results runs/demo/results
    hf upload NAME/my-model my-model                       # to the hub, by Hugging Face's own command

VideoClip.from_pretrained("my-model") and VideoClip.from_pretrained("NAME/my-model") load it. No pickle is written or read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_plugin.files import is_hidden

if TYPE_CHECKING:
    from mmpt_plugin.models.exported import ExportedModel

CARD = """\
---
library_name: mmpt_plugin
pipeline_tag: feature-extraction
tags:
- video-text-retrieval
- videoclip
---

# {title}

A VideoCLIP model ([Xu et al., EMNLP 2021](https://arxiv.org/abs/2109.14084)): it embeds texts, and videos given as one
feature vector a second, so that a video and a text that describes it have a large dot product.

## Use

```python
from mmpt_plugin import VideoClip

clip = VideoClip.from_pretrained("{title}")
text = clip.encode_text(["add the onions"])    # (1, {width})
video = clip.encode_video(features=[x])        # x: (seconds, {feature_size}) -> (1, {width})
print(text @ video.T)
```

## Model

{model}

## Features

{features}

## Training

{training}

## Results

{results}
"""


def export(checkpoint: Path, folder: Path, *, bert: str | None = None, results: Sequence[Path] = ()) -> None:
    """Write a checkpoint, ours or MMPT's, as a folder that `VideoClip.from_pretrained` loads.

    Args:
        checkpoint: a `.pt` file.
        folder: must not exist, or be empty.
        bert: as for `VideoClip.from_pretrained`.
        results: results files of evaluations of this checkpoint, or folders of such, for the model card.

    Raises:
        FileNotFoundError, ValueError: if the checkpoint cannot be loaded, or a result is of another checkpoint.
        FileExistsError: if there is something at `folder`.
    """
    from mmpt_plugin.models.checkpoint import feature_settings, fine_tuned_on, read_checkpoint, sha256
    from mmpt_plugin.models.exported import ExportedModel, write_folder
    from mmpt_plugin.models.loading import checkpoint_config, model_of_checkpoint
    from mmpt_plugin.models.text_backbone import TextBackbone, load_tokenizer

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists already: give another name, or remove it first")
    content = read_checkpoint(checkpoint, "checkpoint")
    config = checkpoint_config(checkpoint, content, bert)
    origin = {"checkpoint": checkpoint.name, "sha256": sha256(checkpoint), "fine_tuned_on": fine_tuned_on(content)}
    tables = [results_table(path, origin["sha256"]) for path in results_files(results)]
    exported = ExportedModel(
        model_of_checkpoint(checkpoint, content, config),
        config,
        load_tokenizer(config.bert),
        feature_settings(content),
        origin,
    )
    card = model_card(folder.resolve().name, exported, content, tables)
    write_folder(folder, exported, TextBackbone.load(config.bert), card)


def results_files(given: Sequence[Path]) -> list[Path]:
    """The results files among files and in folders.

    Raises:
        FileNotFoundError: if a path does not exist or a folder holds none.
    """
    files = []
    for path in given:
        found = sorted(file for file in path.glob("*.json") if not is_hidden(file)) if path.is_dir() else [path]
        if not found or not found[0].is_file():
            raise FileNotFoundError(f"{path}: no results file (<benchmark>.json) there")
        files += found
    return files


def results_table(path: Path, expected: Any) -> str:
    """One benchmark's table for the model card.

    Raises:
        ValueError: if the file holds no results, or those of another checkpoint.
    """
    from mmpt_plugin.evaluation.results import markdown_table, read_results, table_rows

    results = read_results(path)
    found = results["checkpoint"].get("sha256")
    if found != expected:
        raise ValueError(
            f"{path} holds results of another checkpoint ({results['checkpoint'].get('path')}, SHA-256 {found}): evaluate the "
            "one that you export, or leave these results out"
        )
    columns = ["metric", "ours", "95% interval", "chance"]
    rows = [{column: row.get(column, "") for column in columns} for row in table_rows(results)]
    queries = results["counts"]["queries"]
    return f"{results['benchmark']}, {queries} queries:\n\n{markdown_table(rows, columns)}"


def model_card(title: str, exported: ExportedModel, content: dict[str, Any], tables: Sequence[str]) -> str:
    """README.md, filled from what the checkpoint tells."""
    config, model = exported.config, exported.model
    origin = exported.origin
    run = _dictionary(content.get("cfg"))
    task, optimization = _dictionary(run.get("task")), _dictionary(run.get("optimization"))
    history = content.get("optimizer_history")
    last = _dictionary(history[-1]) if isinstance(history, list) and history else {}
    text = model.text_encoder.transformer.config
    facts = {
        "text backbone": f"{text.model_type}, {text.num_hidden_layers} layers, width {text.hidden_size}",
        "video layers": "shared with the text's"
        if config.shared_encoder
        else model.video_encoder.transformer.config.num_hidden_layers,
        "parameters": f"{sum(parameter.numel() for parameter in model.parameters()):,}",
        "pooling": config.pooling,
        "longest clip": f"{config.max_video_seconds} seconds",
        "features a second": config.features_per_second,
        "longest text": f"{config.max_text_pieces} word pieces",
    }
    training = {
        "task": task.get("_name"),
        "data": task.get("data"),
        "videos a batch, clips a video": " x ".join(
            str(task[name]) for name in ("videos_per_batch", "clips_per_video") if name in task
        ),
        "updates": last.get("num_updates"),
        "learning rate": optimization.get("lr"),
        "fine-tuned on": origin["fine_tuned_on"],
        "checkpoint": f"`{origin['checkpoint']}`, SHA-256 `{origin['sha256']}`",
    }
    return CARD.format(
        title=title,
        width=text.hidden_size,
        feature_size=config.feature_size,
        model=_listed(facts),
        features=_listed(exported.features or {})
        or f"The checkpoint does not tell how its features were made. It takes {config.feature_size} numbers a second.",
        training=_listed(training),
        results="\n\n".join(tables) or "None were given when the model was exported.",
    )


def _dictionary(value: Any) -> dict[str, Any]:
    """The value, or nothing where it is of another type, as in MMPT's files."""
    return value if isinstance(value, dict) else {}


def _listed(facts: Any) -> str:
    return "\n".join(f"- {name.replace('_', ' ')}: {value}" for name, value in facts.items() if value not in (None, ""))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command `mmpt-export`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a .pt file, ours or MMPT's")
    parser.add_argument("out", type=Path, help="folder to write; must not exist")
    parser.add_argument("--bert", help="folder or hub name of its BERT (default: the copy beside the checkpoint)")
    parser.add_argument(
        "--results", type=Path, nargs="+", default=[], metavar="PATH", help="results of this checkpoint, for the card"
    )
    given = parser.parse_args(arguments)
    try:
        export(given.checkpoint, given.out, bert=given.bert, results=given.results)
    except (OSError, ValueError) as error:
        sys.exit(f"mmpt-export: {error}")
    sys.stdout.write(f'{given.out}: VideoClip.from_pretrained("{given.out}") loads it\n')


if __name__ == "__main__":
    main()
