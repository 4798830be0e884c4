"""What all tasks of this package share."""

from argparse import ArgumentParser

from fairseq.tasks import FairseqTask

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
