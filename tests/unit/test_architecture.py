"""The layout holds: imports go only downwards, and each kind of I/O has one door."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import kvmnet

SOURCE = Path(kvmnet.__file__).parent

MAY_IMPORT = {
    "errors": set(),
    "model": {"errors"},
    "core": {"model", "errors"},
    "formats": {"model", "errors"},
    "adapters": {"formats", "model", "errors"},
    "flow": {"core", "adapters", "formats", "model", "errors"},
    "lab": {"flow", "adapters", "formats", "model", "errors"},
    "cli": {"lab", "flow", "core", "adapters", "formats", "model", "errors"},
    "__main__": {"cli"},
    "__init__": set(),
}

DOORS = {
    "subprocess": {"adapters/run.py"},
    "libvirt": {
        "adapters/libvirt.py",
        "adapters/libvirt_guest_agent.py",
        "adapters/libvirt_guests.py",
        "adapters/libvirt_networks.py",
        "adapters/libvirt_read.py",
    },
    "libvirt_qemu": {
        "adapters/libvirt_guest_agent.py",
        "adapters/libvirt_guests.py",
        "adapters/libvirt_read.py",
    },
    "fcntl": {"adapters/lock.py", "adapters/offloads.py", "lab"},
    "socket": {"adapters", "lab"},
    "rich": {"cli"},
}

PURE = ("model", "core", "formats")
IMPURE = {"os", "subprocess", "socket", "shutil", "tempfile", "threading", "time", "random"}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Every module that the file imports, wherever in the file, by its full name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layer"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer(path: Path) -> str:
    return path.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_only_downwards(path: Path) -> None:
    here = layer(path)
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "kvmnet" or len(parts) == 1 or parts[1] == "__version__":
            continue
        assert parts[1] == here or parts[1] in MAY_IMPORT[here], f"{here} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_each_kind_of_io_has_one_door(path: Path) -> None:
    where = path.relative_to(SOURCE)
    for name in imports(path):
        doors = DOORS.get(name.split(".")[0])
        assert doors is None or str(where) in doors or where.parts[0] in doors, name


@pytest.mark.parametrize(
    "path", [p for p in modules() if layer(p) in PURE], ids=lambda p: str(p.relative_to(SOURCE))
)
def test_pure_layers_do_no_io(path: Path) -> None:
    assert not IMPURE & {name.split(".")[0] for name in imports(path)}
    calls = {n.func.id for n in ast.walk(ast.parse(path.read_text()))
             if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}  # fmt: skip
    assert not calls & {"open", "print", "input", "exec", "eval"}


def test_every_layer_is_known() -> None:
    assert {layer(p) for p in modules()} <= set(MAY_IMPORT)
    assert "import kvmnet" not in (SOURCE / "__init__.py").read_text()
