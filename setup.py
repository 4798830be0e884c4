"""Installation of the plug-in. Exact versions that were tested together stand in constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="mmpt_plugin",
    version="0.1.0",
    description="VideoCLIP: video-text contrastive pre-training as a plug-in for fairseq",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    packages=find_packages(include=["mmpt_plugin", "mmpt_plugin.*"]),
    python_requires=">=3.11,<3.13",
    # fairseq and faiss are left to extras: which of their distributions fits depends on the machine, and any that
    # provides the module will do. The rest of the list is what fairseq itself imports.
    install_requires=[
        "torch>=2.10",
        "transformers>=5.0",
        "hydra-core>=1.3,<1.4",
        "omegaconf>=2.3,<2.4",
        "numpy>=1.26",
        "sentencepiece>=0.2",
        "protobuf",  # transformers reads SentencePiece models with it
        "tqdm",
        "msgspec>=0.19",  # the shapes of annotation and results files
        "tabulate",
        "bitarray",
        "cffi",
        "cython",
        "packaging",
        "regex",
        "sacrebleu",
        "scikit-learn",
    ],
    extras_require={
        # ve-fairseq wants torchaudio, which cannot load beside a CPU-only torch and then breaks transformers:
        # on such a machine install it with --no-deps, as `make setup` does.
        "fairseq": ["ve-fairseq>=0.12.3"],
        "cpu": ["faiss-cpu>=1.10"],
        "gpu": ["faiss-gpu>=1.15"],
        "prepare": ["av>=14", "ijson>=3.3", "pysubs2>=1.8"],  # features and captions from raw videos
        "ray": ["ray>=2.40"],
        "tensorboard": ["tensorboardX"],
        "dev": ["pytest", "hypothesis", "ruff", "mypy", "pre-commit", "scipy", "ray>=2.40", "scikit-video"],
    },
)
