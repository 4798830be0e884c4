"""Checked entrances: every file that comes from outside is opened here, and every file of ours is written here.

Readers refuse what they cannot use with an `UnusableFile` that names the file. Writers write aside and rename, so that a
file of ours is whole or absent.
"""

from mmpt_plugin.files.arrays import ArrayHeader, open_array, read_array_header, read_arrays
from mmpt_plugin.files.checks import UnusableFile, is_hidden, kind_of, require_file
from mmpt_plugin.files.locks import LockHeld, lock
from mmpt_plugin.files.pickles import SkippedArray, check_pickle, load_pickle
from mmpt_plugin.files.text import TableRow, parse_json, read_json, read_json_lines, read_table, read_text
from mmpt_plugin.files.torch_files import load_torch
from mmpt_plugin.files.writing import clear_left_overs, whole_folder, write_whole

__all__ = [
    "ArrayHeader",
    "LockHeld",
    "SkippedArray",
    "TableRow",
    "UnusableFile",
    "check_pickle",
    "clear_left_overs",
    "is_hidden",
    "kind_of",
    "load_pickle",
    "load_torch",
    "lock",
    "open_array",
    "parse_json",
    "read_array_header",
    "read_arrays",
    "read_json",
    "read_json_lines",
    "read_table",
    "read_text",
    "require_file",
    "whole_folder",
    "write_whole",
]
