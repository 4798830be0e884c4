#!/usr/bin/env python3
"""Transcribes the speech in videos: see --help."""

import sys

from mmpt_plugin.preparation.transcribe import main

if __name__ == "__main__":
    sys.exit(main())
