"""What all tasks of this package share."""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from fairseq.models import BaseFairseqModel
from fairseq.tasks import FairseqTask

from mmpt_plugin.runs.checkpoints import checkpoint_to_start_from, write_whole_checkpoints
from mmpt_plugin.runs.folder import hold_folder
from mmpt_plugin.runs.processes import check_launch
from mmpt_plugin.runs.stopping import StopRequest, stop_on_signals

NO_MODEL = """\
This task reads settings of the model (model.bert and others), and this command line (fairseq-validate?) has no model.
Evaluate a checkpoint with
    fairseq-hydra-train --config-dir projects/videoclip --config-name zeroshot_NAME checkpoint.restore_file=CHECKPOINT \\
        task.data=DATA task.results_path=RESULTS
or, for the loss on the validation videos, call fairseq_cli.validate.main (docs/extending.md shows how).
"""


class VideoClipTask(FairseqTask):
    """A task whose settings refer to those of the model."""

    @classmethod
    def add_args(cls, parser: ArgumentParser) -> None:
        """Called by fairseq's old command lines; one that has no --arch, as fairseq-validate, is refused with the remedy.

        fairseq also calls it for a file FOLDER/tasks/NAME.py of a user's that registers a task NAME, with a group of
        arguments that only serves to print help.
        """
        if isinstance(parser, ArgumentParser) and all(action.dest != "arch" for action in parser._actions):
            parser.exit(2, NO_MODEL)
        super().add_args(parser)

    def has_sharded_data(self, split: str) -> bool:
        """False: fairseq would take a colon in `task.data` for a separator of folders to read in turn."""
        return False


class TrainingTask(VideoClipTask):
    """A task that trains, and whose runs are safe: alone in their folder, stopped and resumed without loss.

    Attributes:
        stop: whether the run was asked to stop.
        start_checkpoint: what fairseq is about to load; None where a run starts anew.
    """

    start_checkpoint: Path | None = None

    def begin_run(self, save_dir: str, restore_file: str, finetune_from_model: str | None) -> None:
        """Called where fairseq sets up the task to train, before it reads or writes anything.

        Raises:
            RuntimeError: if this process is one of several that are not joined, or another run holds the folder.
            FileNotFoundError, ValueError: if the checkpoint to start from is missing or damaged.
        """
        check_launch()
        hold_folder(save_dir)
        write_whole_checkpoints()
        self.start_checkpoint = checkpoint_to_start_from(save_dir, restore_file, finetune_from_model)
        self.stop = StopRequest()
        stop_on_signals()

    def train_step(self, sample: Any, model: BaseFairseqModel, *args: Any, **kwargs: Any) -> tuple:
        """fairseq's step; what it logs tells the other processes of a request to stop."""
        loss, sample_size, logging_output = super().train_step(sample, model, *args, **kwargs)
        stop = getattr(self, "stop", None)
        return loss, sample_size, {**logging_output, "asked_to_stop": int(stop is not None and stop.asked)}

    def reduce_metrics(self, logging_outputs: Sequence[dict[str, Any]], criterion: Any) -> None:
        """fairseq's, on values that are fetched from the device in one go: it is waited for once an update."""
        logging_outputs = on_host(logging_outputs)
        if any(output.get("asked_to_stop", 0) for output in logging_outputs):  # the sum over all processes
            self.stop.agreed = True
        super().reduce_metrics(logging_outputs, criterion)


def on_host(logging_outputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same values as Python numbers."""
    tensors = [value for output in logging_outputs for value in output.values() if torch.is_tensor(value)]
    if not tensors:
        return list(logging_outputs)
    numbers = iter(torch.stack([value.detach().double().reshape(()) for value in tensors]).tolist())
    return [
        {name: next(numbers) if torch.is_tensor(value) else value for name, value in output.items()}
        for output in logging_outputs
    ]
