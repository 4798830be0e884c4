"""Features of films by EfficientNet-Lite2: mmpt-extract, with the options that suit them.

python -m demo.pictures.extract --videos runs/pictures/films --out runs/pictures/features
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from mmpt_plugin.features.command import main as extract

FRAMES = ("--network", "efficientnet-lite2", "--fps", "1")  # one frame a second is enough for stills that move


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    return extract([*FRAMES, *given])


if __name__ == "__main__":
    sys.exit(main())
