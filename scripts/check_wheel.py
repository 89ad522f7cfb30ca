"""Build the wheel and try it in a clean environment next to Hugging Face ``datasets``.

    python scripts/check_wheel.py

Fails unless the wheel holds every module of the source folders, each of them imports from the
wheel, ``import datasets`` is still Hugging Face's, and ``tubelet --help`` answers.
"""

import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"

INSIDE = """
import importlib, sys
import datasets
assert len(datasets.Dataset.from_dict({"a": [1, 2]})) == 2, datasets.__file__
for name in sys.argv[1:]:
    module = importlib.import_module(name)
    assert module.__file__.startswith(sys.prefix), f"{name} came from {module.__file__}"
assert importlib.import_module("tubelet.datasets") is not datasets
print(f"{len(sys.argv) - 1} modules import beside Hugging Face datasets {datasets.__version__}")
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        wheel = build_wheel(Path(folder))
        modules = check_contents(wheel)
        python = make_environment(Path(folder) / "clean", wheel)
        run(python, "-c", INSIDE, *modules, cwd=folder)
        run(python.with_name("tubelet"), "--help", cwd=folder)
    print(f"{wheel.name}: fine")


def build_wheel(folder: Path) -> Path:
    """Build without setuptools' scratch folder, which would bring deleted modules back."""
    shutil.rmtree(ROOT / "build" / "lib", ignore_errors=True)
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", folder, ROOT)
    (wheel,) = folder.glob("tubelet-*.whl")
    return wheel


def check_contents(wheel: Path) -> list[str]:
    """The wheel's module names, after checking that no file of the source folders is missing."""
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    inside = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(
        ["git", "-C", ROOT, "ls-files", *folders["package-dir"].values()],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split()
    wanted = {f"tubelet/{path}" for path in tracked if Path(path).suffix in (".py", ".xml")}
    missing = sorted(wanted - inside)
    if missing:
        sys.exit(f"the wheel lacks {', '.join(missing)}: see [tool.setuptools] in pyproject.toml")
    modules = sorted(path.removesuffix(".py") for path in inside if path.endswith(".py"))
    return [path.removesuffix("/__init__").replace("/", ".") for path in modules]


def make_environment(folder: Path, wheel: Path) -> Path:
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pip = (python, "-m", "pip", "install", "--quiet", "--no-compile", "-c", CONSTRAINTS)
    run(*pip, "torch==2.13.0")
    run(*pip, wheel, "datasets")
    return python


def run(*command: object, cwd: object = None) -> None:
    subprocess.run([str(word) for word in command], check=True, cwd=cwd and str(cwd))


if __name__ == "__main__":
    main()
