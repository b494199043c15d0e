"""The structure of the package: imports go one way, without cycles, and files stay small."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOW = (  # a part may import from its own step and from those before it
    ("errors", "files", "grids", "processes", "progress", "setting", "target"),
    ("dispersion", "metrics", "correction"),
    ("data",),
    ("models",),
    ("config",),
    ("ahead", "checkpoints", "device"),
    ("compiled",),
    ("network", "embeddings", "fitting", "plain_training", "training", "together", "inference", "n_of_z"),
    ("estimates", "frozen", "hub", "program", "results", "runs", "scores"),
    ("products",),
    ("api", "report"),
    ("tracking",),
    ("stages",),
    ("__main__", "corrected", "rail", "usage"),
)
MOST_LINES = 24_800
STEP = {part: i for i, parts in enumerate(FLOW) for part in parts}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "photoz_lit").rglob("*.py"))
}
PARTS = MODULES.keys() - {"photoz_lit"}


def imported(name: str, path: Path) -> Iterator[str]:
    """Yield the modules of the package that a module imports, anywhere in it but for type checkers alone."""
    tree = ast.parse(path.read_text())
    for_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in PARTS)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            for alias in node.names:
                deeper = f"{node.module}.{alias.name}"
                found = deeper if deeper in MODULES else node.module
                if found in PARTS:
                    yield found


IMPORTS = {name: set(imported(name, path)) - {name} for name, path in MODULES.items()}


def part(module: str) -> str:
    return module.split(".")[1]


def test_every_part_has_its_place_in_the_flow() -> None:
    assert {part(name) for name in PARTS} <= STEP.keys()


def test_imports_go_one_way() -> None:
    upward = [
        f"{name} imports {other}"
        for name in sorted(PARTS)
        for other in sorted(IMPORTS[name])
        if STEP[part(other)] > STEP[part(name)]
    ]
    assert not upward, "\n".join(upward)


def test_report_reads_results_and_knows_no_models() -> None:
    known = {part(other) for name in PARTS if part(name) == "report" for other in IMPORTS[name]}
    assert not known & {"models", "config", "training", "embeddings", "inference", "stages"}, known


def test_no_module_imports_itself_through_others() -> None:
    done: set[str] = set()

    def walk(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name not in done:
            for other in IMPORTS[name]:
                walk(other, (*trail, name))
            done.add(name)

    for name in MODULES:
        walk(name, ())


@pytest.mark.parametrize("room", ["utils", "common", "helpers", "misc"])
def test_no_room_is_called_after_nothing(room: str) -> None:
    assert not [name for name in MODULES if room in name.split(".")]


def test_files_and_the_whole_stay_small() -> None:
    lines = {name: len(path.read_text().splitlines()) for name, path in MODULES.items()}
    assert not {name: n for name, n in lines.items() if n > 400}
    templates = [
        p for p in (ROOT / "photoz_lit").rglob("*") if p.suffix in (".jinja", ".js", ".css", ".html")
    ]
    assert sum(lines.values()) + sum(len(p.read_text().splitlines()) for p in templates) <= MOST_LINES
    assert len((ROOT / "README.md").read_text().splitlines()) <= 200
