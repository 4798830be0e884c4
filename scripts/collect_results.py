#!/usr/bin/env python
"""One table over benchmarks and checkpoints: see mmpt_plugin/evaluation/collect.py."""

from mmpt_plugin.evaluation.collect import main

if __name__ == "__main__":
    main()
