#!/usr/bin/env python3
"""Makes shards: see --help. The command is also installed as `mmpt-shards`."""

import sys

from mmpt_plugin.preparation.make_shards import main

if __name__ == "__main__":
    sys.exit(main())
