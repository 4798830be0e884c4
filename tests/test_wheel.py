"""A wheel works alone: built from an sdist, installed outside the checkout, it pre-trains and evaluates."""

import contextlib
import json
import os
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, requires
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mmpt_plugin import VideoClip

REPOSITORY = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def run(*command: object, cwd: Path) -> str:
    """Standard output of a command that must succeed, run without anything of this checkout in reach."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def cpu_seconds_of_children() -> float:
    used = os.times()
    return used.children_user + used.children_system


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist of the checkout's tracked files, and the wheel that is built from it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=REPOSITORY).splitlines():
        if (REPOSITORY / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((REPOSITORY / name).read_bytes())
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source, cwd=out)
    (sdist,), (wheel,) = out.glob("*.tar.gz"), out.glob("*.whl")
    return sdist, wheel


def environment(folder: Path, wheel: Path) -> tuple[Path, Path]:
    """An environment with the wheel and nothing else in it: its folder of commands, and that of its packages."""
    venv.create(folder, symlinks=True)
    bin_folder = folder / "bin"
    own = run(bin_folder / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder)
    pip = (sys.executable, "-m", "pip", "--quiet", "--python", bin_folder / "python")
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    return bin_folder, Path(own.strip())


@pytest.fixture(scope="module")
def installed(distributions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The commands of an environment with the wheel in it. Other packages are those of this environment."""
    bin_folder, packages = environment(tmp_path_factory.mktemp("environment"), distributions[1])
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return bin_folder


def with_what_they_need(names: list[str]) -> set[str]:
    """The distributions and all that they require, without extras, as far as it is installed here."""
    found: set[str] = set()
    while names:
        name = canonicalize_name(names.pop())
        with contextlib.suppress(PackageNotFoundError):
            for text in requires(name) or ():
                requirement = Requirement(text)
                marker = requirement.marker
                if canonicalize_name(requirement.name) not in found and (not marker or marker.evaluate({"extra": ""})):
                    names.append(requirement.name)
            found.add(name)
    return found


@pytest.fixture(scope="module")
def for_embedding(distributions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment of the wheel and torch, transformers and numpy with what these require, and nothing else.

    Their files are linked from this environment, distribution by distribution, which spares gigabytes of copies.
    """
    bin_folder, packages = environment(tmp_path_factory.mktemp("for_embedding"), distributions[1])
    for name in with_what_they_need(["torch", "transformers", "numpy"]):
        of_it = distribution(name)
        tops = {file.parts[0] for file in of_it.files or ()} - {"..", "__pycache__"}
        for top in tops:
            if not (packages / top).exists():
                (packages / top).symlink_to(Path(str(of_it.locate_file(top))))
    return bin_folder / "python"


def test_what_the_distributions_hold(distributions):
    sdist, wheel = distributions
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel, cwd=sdist.parent)
    inside = set(zipfile.ZipFile(wheel).namelist())
    configs = {str(path.relative_to(REPOSITORY / "projects" / "videoclip"))
               for path in (REPOSITORY / "projects" / "videoclip").rglob("*.yaml") if path.stem != "demo"}  # fmt: skip
    assert {f"mmpt_plugin/configs/{name}" for name in configs} <= inside
    package = REPOSITORY / "mmpt_plugin"
    data = [path for path in package.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")]
    assert package / "py.typed" in data
    assert {str(path.relative_to(REPOSITORY)) for path in data} <= inside
    assert not [
        name for name in inside if name.startswith(("tests/", "scripts/", "demo/")) or name.endswith("/demo.yaml")
    ]
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    with tarfile.open(sdist) as archive:
        assert any(name.endswith("projects/videoclip/pretrain.yaml") for name in archive.getnames())


def test_every_command_says_what_it_does(installed, tmp_path):
    steps = ["extract", "captions", "transcribe", "tokenizer", "shards", "check"]
    wanted = {f"mmpt-{name}" for name in [*steps, *["configs", "evaluate", "export", "report", "results", "search"]]}
    assert wanted <= {path.name for path in installed.iterdir()}
    for command in (installed / name for name in sorted(wanted)):
        began = cpu_seconds_of_children()
        assert "usage:" in run(command, "--help", cwd=tmp_path)
        assert cpu_seconds_of_children() - began < 1, f"{command.name} --help imports too much"


def test_it_pretrains_and_evaluates_outside_the_checkout(installed, tmp_path, tiny_settings, benchmark_data):
    configs = run(installed / "mmpt-configs", cwd=tmp_path).strip()
    assert Path(configs).is_dir() and REPOSITORY not in Path(configs).parents
    train = (installed / "python", "-m", "fairseq_cli.hydra_train", "--config-dir", configs, "--config-name")
    settings = (*tiny_settings, "common.cpu=true", "optimization.max_update=2", "checkpoint.save_dir=run")
    run(*train, "pretrain", *settings, cwd=tmp_path)
    run(*train, "zeroshot_youcook2", f"task.data={benchmark_data}", "checkpoint.restore_file=run/checkpoint_last.pt",
        "task.results_path=results", "common.cpu=true", "dataset.num_workers=0", cwd=tmp_path)  # fmt: skip
    results = json.loads((tmp_path / "results" / "youcook2.json").read_text())
    assert 0 <= results["metrics"]["R@1"] <= 1 and results["counts"]["missing"] == []
    assert "youcook2" in run(installed / "mmpt-results", "results", cwd=tmp_path)


EMBED = """
import importlib.util, json, sys
from importlib.metadata import distributions
import numpy as np
from mmpt_plugin import VideoClip
clip = VideoClip.from_pretrained(sys.argv[1])
text = clip.encode_text(["add the onions", "stir"], normalize=True)
video = clip.encode_video(features=[np.ones((40, 512)) / 512**0.5], normalize=True)
print(json.dumps([sorted(d.name.lower() for d in distributions()), (text @ video.T).tolist()]))
"""


def test_embedding_where_there_is_nothing_but_torch_transformers_and_numpy(for_embedding, tmp_path, tiny_checkpoint):
    names, cosines = json.loads(run(for_embedding, "-c", EMBED, tiny_checkpoint, cwd=tmp_path))
    assert {"mmpt_plugin", "torch", "transformers", "numpy"} <= set(names) and len(names) < 60
    absent = {
        "ve-fairseq",
        "hydra-core",
        "omegaconf",
        "faiss-cpu",
        "msgspec",
        "sentencepiece",
        "protobuf",
        "av",
        "scipy",
    }
    assert not absent & set(names)
    clip = VideoClip.from_pretrained(tiny_checkpoint)
    text = clip.encode_text(["add the onions", "stir"], normalize=True)
    video = clip.encode_video(features=[np.ones((40, 512)) / 512**0.5], normalize=True)
    np.testing.assert_allclose(cosines, text @ video.T, atol=1e-6)
    for module, said in (("mmpt_plugin.tasks", r"train"), ("mmpt_plugin.features.one_video", "av")):
        done = subprocess.run([for_embedding, "-c", f"import {module}"], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 1 and said in done.stderr.splitlines()[-1]
