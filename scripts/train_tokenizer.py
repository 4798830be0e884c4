#!/usr/bin/env python3
"""Trains a vocabulary: see --help."""

import sys

from mmpt_plugin.preparation.train_tokenizer import main

if __name__ == "__main__":
    sys.exit(main())
