#!/usr/bin/env python
"""One table over benchmarks and checkpoints: see mmpt_plugin/report/collect.py."""

from mmpt_plugin.report.collect import main

if __name__ == "__main__":
    main()
