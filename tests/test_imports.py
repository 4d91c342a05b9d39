"""What imports what: quick where it must be, one direction everywhere, files that fit the head."""

import ast
import subprocess
import sys

import pytest

from common.paths import ROOT

FILES = sorted((ROOT / "common").rglob("*.py"))
MAX_LINES = 300


def name_module(path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_module(path): path for path in FILES}


def is_command(statement: ast.stmt) -> bool:
    """Whether this is what a module does when it is run as a program."""
    return isinstance(statement, ast.If) and "__main__" in ast.unparse(statement.test)


def list_imports(module: str) -> set[str]:
    """Modules of `common` that a module imports, at its head or inside its functions."""
    found = set()
    tree = ast.parse(MODULES[module].read_text())
    tree.body = [statement for statement in tree.body if not is_command(statement)]
    for statement in ast.walk(tree):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and statement.module:
            inner = {f"{statement.module}.{alias.name}" for alias in statement.names}
            found |= (inner & MODULES.keys()) or {statement.module}
    return (found & MODULES.keys()) - {module, "common"}


def test_no_module_imports_itself_around_corners():
    graph = {module: list_imports(module) for module in MODULES}
    while graph:
        leaves = [module for module, imports in graph.items() if not imports & graph.keys()]
        assert leaves, f"these import each other in a circle: {sorted(graph)}"
        for module in leaves:
            del graph[module]


@pytest.mark.parametrize("path", FILES, ids=name_module)
def test_a_file_fits_the_head(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_reading_results_is_quick():
    code = (
        "import sys, common.results; heavy = {'librosa', 'tensorflow', 'keras', 'requests', 'jax'};"
        "print(sorted(heavy & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
