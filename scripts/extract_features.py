#!/usr/bin/env python
"""Videos to features, one row a second: the command `mmpt-extract`. See --help."""

import sys

from mmpt_plugin.features.command import main

if __name__ == "__main__":
    sys.exit(main())
