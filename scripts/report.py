#!/usr/bin/env python3
"""Pages of evaluations and of training runs: see --help."""

from mmpt_plugin.report.command import main

if __name__ == "__main__":
    main()
