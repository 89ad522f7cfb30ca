"""The architecture, enforced: which folder may import which, read from the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each folder and what it may import. Arrows only point down:
#   cli > benchmarks > {envs, planning} > vjepa > datasets > core
ALLOWED = {
    "core": set(),
    "datasets": {"core"},
    "vjepa": {"core", "datasets"},
    "planning": {"core"},
    "envs": {"core", "datasets", "planning.protocol"},
    "benchmarks": {"core", "datasets", "vjepa", "planning", "envs"},
    "cli": {"core", "datasets", "vjepa", "planning", "envs", "benchmarks"},
}

# Libraries that break beside this torch, or whose work is done here (docs: CONTRIBUTING.md).
BANNED = {"torchvision", "timm", "lightning", "pytorch_lightning", "cv2", "hydra", "omegaconf"}

FILES = {
    path.relative_to(ROOT)
    .with_suffix("")
    .as_posix()
    .replace("/", ".")
    .removesuffix(".__init__"): path
    for folder in ALLOWED
    for path in sorted((ROOT / folder).rglob("*.py"))
}


def imports(module: str) -> Iterator[tuple[str, bool]]:
    """(imported name, whether from tubelet) for every import in ``module``'s source.

    Names inside tubelet come without the ``tubelet.`` prefix. Imports inside functions count;
    those under ``if TYPE_CHECKING`` do not.
    """
    path = FILES[module]
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in _runtime_nodes(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, False
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or "", False
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] + (node.module or "").split(".")
            base = [part for part in base if part]
            for alias in node.names:
                full = ".".join([*base, alias.name])
                yield (full if full in FILES else ".".join(base)), True


def _runtime_nodes(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING"):
            continue
        yield child
        yield from _runtime_nodes(child)


@pytest.mark.parametrize("folder", ALLOWED)
def test_arrows_only_point_down(folder):
    wrong = [
        f"{module} imports {name}"
        for module in FILES
        if module.split(".")[0] == folder
        for name, ours in imports(module)
        if ours and not any(_inside(name, part) for part in {folder, *ALLOWED[folder]})
    ]
    assert not wrong, wrong


def test_imports_inside_the_package_are_relative_and_nothing_banned_is_used():
    wrong = [
        f"{module} imports {name}"
        for module in FILES
        for name, ours in imports(module)
        if not ours and name.split(".")[0] in {"tubelet", *BANNED}
    ]
    assert not wrong, wrong


def test_no_cycles_between_modules():
    graph = {
        module: {
            name for name, ours in imports(module) if ours and name in FILES and name != module
        }
        for module in FILES
    }
    cycle = _find_cycle(graph)
    assert cycle is None, " -> ".join(cycle)


def test_the_checker_itself_sees_cycles_and_layers():
    assert _find_cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) in (list("abca"), list("bcab"))
    assert _find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) is None
    assert ("core.errors", True) in set(imports("core.run"))
    assert ("core.machine", True) in set(imports("core.run"))
    assert len(FILES) > 20


def _inside(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def _find_cycle(graph: dict[str, set[str]]) -> list[str] | None:
    """Some cycle as a list of nodes that ends where it starts, or None."""
    done: set[str] = set()

    def visit(node: str, path: list[str]) -> list[str] | None:
        if node in path:
            return [*path[path.index(node) :], node]
        if node in done:
            return None
        for following in sorted(graph[node]):
            if found := visit(following, [*path, node]):
                return found
        done.add(node)
        return None

    return next((found for node in sorted(graph) if (found := visit(node, []))), None)
