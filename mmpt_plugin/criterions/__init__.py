"""Losses, one a file, and what those over seconds share (frame_criterion.py)."""
