"""The rooms of the house and what may pass between them, read from the imports themselves."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "engine").rglob("*.py"))
ROOMS = {
    0: {
        "errors",
        "progress",
        "cadence",
        "columns",
        "block",
        "backend",
        "slow_input",
        "timings",
        "variables",
        "replicas",
        "optimizers",
        "execution",
        "importing",
    },
    1: {
        "losses",
        "metrics",
        "data",
        "loop",
        "hooks",
        "outline",
        "checkpoint",
        "interrupts",
        "state",
        "description",
    },
    2: {
        "task",
        "supervised",
        "stepped",
        "assembly",
        "loops",
        "phase",
        "evaluation",
        "fitting",
        "prediction",
        "arguments",
        "caveats",
        "record",
        "report",
        "run_directory",
        "saving",
        "tuning",
        "traces",
    },
    3: {"trainer"},
    4: {"proof"},
}
LAYER = {room: layer for layer, rooms in ROOMS.items() for room in rooms}
MAY_DISTRIBUTE = {"data", "loop", "loops", "losses", "replicas", "trainer", "arguments"}


def room_of(path):
    """`engine/data/arrays.py` is in the room "data", `engine/loop.py` in "loop", `engine/__init__.py` in ""."""
    first = path.relative_to(ROOT / "engine").parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def imports_of(path):
    """The modules that a file imports, by their whole names."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            is_package = node.module == "engine"
            yield from (f"engine.{alias.name}" for alias in node.names) if is_package else [node.module]


def rooms_imported_by(path):
    """The rooms of the engine, other than its own, that a file imports from."""
    own = [name.split(".")[1] for name in imports_of(path) if name.startswith("engine.")]
    return {room for room in own if room != room_of(path)}


def distributes(path):
    """Whether a file names `tf.distribute`."""
    return any(
        isinstance(node, ast.Attribute)
        and node.attr == "distribute"
        and ast.unparse(node.value) in ("tf", "tensorflow")
        for node in ast.walk(ast.parse(path.read_text()))
    ) or any("distribute" in name and name.startswith("tensorflow") for name in imports_of(path))


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def in_layers(*layers):
    return pytest.mark.parametrize("path", [path for path in FILES if LAYER.get(room_of(path)) in layers], ids=name_of)


def run_python(program, **environment):
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_every_file_is_in_a_room_of_a_layer():
    assert {room_of(path) for path in FILES} <= {*LAYER, "callbacks", ""}


@in_layers(0, 1, 2, 3, 4)
def test_imports_go_down_only(path):
    """Files of layers 0 and 2 may know their neighbours; those of layer 1 do not."""
    layer = LAYER[room_of(path)]
    reachable = {room for room, other in LAYER.items() if other < layer or (other == layer and layer in (0, 2))}
    reachable |= {"callbacks"} if layer == 3 else set()

    assert rooms_imported_by(path) <= reachable


@pytest.mark.parametrize("path", [path for path in FILES if room_of(path) == "callbacks"], ids=name_of)
def test_callbacks_know_hooks_and_what_hooks_hand_them_alone(path):
    assert rooms_imported_by(path) <= {"cadence", "columns", "errors", "hooks", "optimizers", "state", "timings"}


def test_nobody_but_the_package_itself_and_a_proof_knows_the_trainer():
    assert ["engine/__init__.py", "engine/proof/script.py"] == [
        name_of(path) for path in FILES if "trainer" in rooms_imported_by(path)
    ]


def test_nobody_but_the_trainer_and_the_package_itself_knows_callbacks():
    assert ["engine/__init__.py", "engine/trainer.py"] == [
        name_of(path) for path in FILES if "callbacks" in rooms_imported_by(path)
    ]


def test_replicas_are_the_business_of_few_rooms():
    assert {room_of(path) for path in FILES if distributes(path)} <= MAY_DISTRIBUTE


@pytest.mark.parametrize("module", sorted(ROOMS[0] - {"backend", "optimizers", "replicas"}))
def test_the_bottom_needs_no_tensorflow(module):
    """Plans are made and tested without it; the package itself, which imports everything, is left out here."""
    done = run_python(
        f"""
import sys, types
package = types.ModuleType("engine")
package.__path__ = ["engine"]
sys.modules["engine"] = package
import engine.{module}
print(sorted({{"tensorflow", "keras"}} & set(sys.modules)))
"""
    )

    assert ("[]\n", "") == (done.stdout, done.stderr)


def test_another_backend_is_refused_in_words():
    """Before Keras is imported, which would fail in words of its own where that backend is not installed."""
    done = run_python("import engine", KERAS_BACKEND="jax")

    assert (
        "engine.errors.BackendError: KERAS_BACKEND is 'jax'. engine trains through tf.function and tf.distribute and "
        "needs Keras on TensorFlow. Set the environment variable KERAS_BACKEND=tensorflow, or unset it, before Python "
        "starts."
    ) == done.stderr.splitlines()[-1]


def test_an_empty_backend_variable_counts_as_unset():
    """As it does in Keras."""
    done = run_python("import engine.backend", KERAS_BACKEND="")

    assert 0 == done.returncode, done.stderr
