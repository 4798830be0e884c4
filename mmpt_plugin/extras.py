"""Packages that only some uses need: which extra brings them, and what is said where they are missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

EXTRAS = {  # module -> the extras of setup.py that bring it
    "altair": ("report",),
    "av": ("prepare", "speech", "search", "mteb"),
    "bitarray": ("train",),
    "cffi": ("train",),
    "Cython": ("train",),
    "faiss": ("cpu",),  # or "gpu"
    "fairseq": ("train,fairseq",),
    "fairseq_cli": ("train,fairseq",),
    "faster_whisper": ("speech",),
    "gcsfs": ("remote",),
    "hydra": ("train",),
    "ijson": ("prepare",),
    "jinja2": ("report", "search"),
    "mteb": ("mteb",),
    "omegaconf": ("train",),
    "packaging": ("train",),
    "PIL": ("report",),
    "pysubs2": ("prepare", "search"),
    "qdrant_client": ("qdrant",),
    "ray": ("ray",),
    "regex": ("train",),
    "s3fs": ("remote",),
    "sacrebleu": ("train",),
    "sklearn": ("train",),
    "starlette": ("search",),
    "tensorboardX": ("tensorboard",),
    "uvicorn": ("search",),
    "vl_convert": ("report",),
}


class MissingExtra(ImportError, ValueError):
    """A package is not installed that comes with one of this package's extras."""


@contextmanager
def naming_extras(extra: str = "", use: str = "this") -> Iterator[None]:
    """Around a use of such packages, their imports included: where one is missing, the extra to install is named.

    Args:
        extra: the one to name where several bring the package.
        use: what needs it, to begin the message with.

    Raises:
        MissingExtra: with the command that installs the extra.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        chosen = extra if extra in EXTRAS[module] else EXTRAS[module][0]
        raise MissingExtra(
            f"{use} needs the package {module}, which is not installed: pip install 'mmpt_plugin[{chosen}]'"
        ) from error
