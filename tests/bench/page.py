"""`docs/benchmarks.md`: each case writes its own section between two marks."""

import os
import platform
from collections.abc import Iterable, Sequence
from pathlib import Path

import keras
import tensorflow as tf

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
PICTURES = PAGE.parent / "assets"


def table(header: str, rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; the columns' names are divided by bars."""
    names = [name.strip() for name in header.split("|")]
    lines = [names, ["---"] * len(names), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def machine() -> str:
    """What the measurements were made on, in one line."""
    cores, gpus = len(os.sched_getaffinity(0)), len(tf.config.list_physical_devices("GPU"))
    versions = f"TensorFlow {tf.__version__}, Keras {keras.__version__}, Python {platform.python_version()}"
    return f"{_processor()}, {platform.machine()}, {cores} cores, {gpus} GPUs; {versions}."


def write(name: str, text: str, page: Path = PAGE) -> None:
    """Puts a case's section in the place that is kept for it.

    Raises:
        ValueError: The page keeps no place for it.
    """
    begin, end = f"<!-- bench: {name}: begin -->", f"<!-- bench: {name}: end -->"
    before, mark, rest = page.read_text(encoding="utf-8").partition(begin)
    _, other, after = rest.partition(end)
    if not (mark and other):
        raise ValueError(f"{page.name} has no place for {name!r}: put {begin} and {end} where its section shall stand.")
    page.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def _processor() -> str:
    """The processor's name, where Linux tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "CPU")
