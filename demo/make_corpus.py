"""Write the demo corpus: a generated world of cooking videos, with everything that pre-training and evaluation read.

Takes seconds and about 160 MB. See demo/world.py for what the world is and for every number of it.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from demo.corpus import write_demo_corpus
from demo.world import DemoWorld


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="data folder to make; one that holds this world already is kept")
    parser.add_argument("--overwrite", action="store_true", help="replace another demo world in the folder")
    numbers = parser.add_argument_group("the world", "any field of DemoWorld; pairs as two numbers")
    for name, default in asdict(DemoWorld()).items():
        is_pair = isinstance(default, tuple)
        numbers.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(default[0] if is_pair else default),
            nargs=2 if is_pair else None,
            default=default,
            metavar="N",
            help="default: %(default)s",
        )
    args = vars(parser.parse_args())
    folder, overwrite = args.pop("folder"), args.pop("overwrite")
    chosen: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in args.items()}
    world = DemoWorld(**chosen)
    write_demo_corpus(folder, world, overwrite=overwrite)
    print(f"demo world (seed {world.seed}) in {folder}")


if __name__ == "__main__":
    main()
