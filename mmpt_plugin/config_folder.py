"""Where the YAML files of the runs lie: what `fairseq-hydra-train --config-dir` is given."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def config_folder() -> Path:
    """The folder inside an installed package, or the checkout's where the package is used from one."""
    installed, checkout = PACKAGE / "configs", PACKAGE.parent / "projects" / "videoclip"
    return checkout if checkout.is_dir() else installed


def main(argv: Sequence[str] | None = None) -> None:
    """The command `mmpt-configs`."""
    parser = argparse.ArgumentParser(
        description="Print the folder of the YAML files, for use in a command: "
        'fairseq-hydra-train --config-dir "$(mmpt-configs)" --config-name NAME ...'
    )
    parser.add_argument("--list", action="store_true", help="print the names that --config-name takes")
    names = sorted(path.stem for path in config_folder().glob("*.yaml"))
    sys.stdout.write("\n".join(names if parser.parse_args(argv).list else [str(config_folder())]) + "\n")
