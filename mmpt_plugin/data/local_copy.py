"""Folders of features or shards, on an object store or a network's disk, copied to a local disk before they are read.

Many processes that read small stretches of large files here and there are slow on such a store. A copy is read like any
folder. The processes of a machine share it: the first one copies, the others wait for it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import shutil
from pathlib import Path
from typing import Any

import fsspec  # comes with torch
from tqdm import tqdm

from mmpt_plugin.extras import MissingExtra
from mmpt_plugin.files import UnusableFile, clear_left_overs, lock, read_json, whole_folder

logger = logging.getLogger(__name__)

INVENTORY = "copied_from.json"
SPARE = 1 << 28  #: bytes that a copy leaves free on its disk
VERSIONS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "created")
"""What file systems tell of a file by which a new one is known, best first."""

STORES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
"""Kinds of address, and the package that reads them; both come with the extra `remote`."""


def is_address(place: str | Path) -> bool:
    """Whether it names a place on an object store, such as s3://bucket/folder, and no folder here."""
    return "://" in str(place)


def local_folder(place: str | Path, copy: str | Path | None, setting: str) -> Path:
    """The folder to read: `place` itself, or its copy on a local disk.

    Args:
        place: a folder, or an address that fsspec knows.
        copy: folder on a local disk for copies, or None. A copy is made anew where a file of `place` has another size or
            time than when it was copied, else it is used as it is.
        setting: what `place` was given as, for the messages.

    Raises:
        FileNotFoundError: if there is no file at `place`.
        MissingExtra: if the package for such an address is not installed.
        OSError: if the disk has too little space, or the store cannot be read.
        ValueError: for an address without a `copy`, or of an unknown kind.
    """
    if copy is None:
        if is_address(place):
            raise ValueError(f"{setting} is {place}: set task.local_copy to a folder on a local disk to copy it to")
        return Path(place)
    address = str(place) if is_address(place) else str(Path(place).resolve())
    folder = Path(copy).resolve() / hashlib.sha256(address.encode()).hexdigest()[:16]
    if not is_address(place) and folder.is_relative_to(address):
        raise ValueError(f"task.local_copy={copy} lies inside of {setting}={place}, which would be copied into itself")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with lock(folder.with_name(f".{folder.name}.lock"), purpose=f"the copy of {address}", wait_seconds=math.inf):
        clear_left_overs(folder.parent)
        store, root = _open(address, setting)
        files = _files(store, root, f"{setting}={place}")
        if _copied(folder) != {"address": address, "files": files}:
            _copy(store, root, files, folder, address)
    return folder


def _open(address: str, setting: str) -> tuple[Any, str]:
    """fsspec's file system, and the place in it."""
    kind = address.partition("://")[0]
    try:
        return fsspec.core.url_to_fs(address)
    except ImportError as error:
        package = STORES.get(kind)
        remedy = f"{package}, which is not installed: pip install 'mmpt_plugin[remote]'" if package else str(error)
        raise MissingExtra(f"{setting}={address} needs the package {remedy}") from error
    except ValueError as error:
        raise ValueError(f"{setting} is {address}: fsspec knows no address of this kind ({error})") from error


def _files(store: Any, root: str, name: str) -> dict[str, list[Any]]:
    """Name -> size and version of each file below a place; hidden ones are left out."""
    found = store.find(root, detail=True)
    if not found:
        raise FileNotFoundError(f"{name}: no files there")
    files = {}
    for path, told in sorted(found.items()):
        below = path[len(root) :].lstrip("/")
        if any(part.startswith(".") for part in below.split("/")):
            continue
        version = next((str(told[key]) for key in VERSIONS if key in told), "")
        files[below] = [told["size"], version]
    return files


def _copied(folder: Path) -> Any:
    """What a copy says of what it was made from; None where there is no whole copy."""
    try:
        inventory = read_json(folder / INVENTORY)
        whole = all((folder / name).stat().st_size == size for name, (size, _) in inventory["files"].items())
    except (FileNotFoundError, NotADirectoryError, UnusableFile, KeyError, TypeError, ValueError, AttributeError):
        return None
    return inventory if whole else None


def _copy(store: Any, root: str, files: dict[str, list[Any]], folder: Path, address: str) -> None:
    """Copy all files, into a folder that is whole or absent."""
    if folder.exists():
        logger.info(f"{address} has changed since it was copied to {folder}: it is copied anew")
        shutil.rmtree(folder)
    needed, free = sum(size for size, _ in files.values()), shutil.disk_usage(folder.parent).free
    if needed + SPARE > free:
        raise OSError(
            f"task.local_copy={folder.parent}: {address} takes {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free "
            "there: make room, give a larger disk, or leave task.local_copy out"
        )
    logger.info(f"copying {len(files)} files ({needed / 2**30:.1f} GiB) from {address} to {folder}")
    with (
        whole_folder(folder) as aside,
        tqdm(total=needed, unit="B", unit_scale=True, desc="copying", disable=None) as bar,
    ):
        for name, (size, _) in files.items():
            target = aside / name
            target.parent.mkdir(parents=True, exist_ok=True)
            store.get_file(f"{root.rstrip('/')}/{name}", str(target))
            if (found := target.stat().st_size) != size:
                raise UnusableFile(f"{address}/{name}: {found} of its {size} bytes came: did it change meanwhile?")
            bar.update(size)
        (aside / INVENTORY).write_text(json.dumps({"address": address, "files": files}), encoding="utf-8")
