#!/usr/bin/env python3
"""Checks a data folder: see --help. The command is also installed as `mmpt-check`."""

import sys

from mmpt_plugin.preparation.check_data import main

if __name__ == "__main__":
    sys.exit(main())
