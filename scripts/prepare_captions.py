#!/usr/bin/env python3
"""Prepares captions: see --help. The command is also installed as `mmpt-captions`."""

import sys

from mmpt_plugin.preparation.prepare_captions import main

if __name__ == "__main__":
    sys.exit(main())
