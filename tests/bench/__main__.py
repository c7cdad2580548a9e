"""`python -m tests.bench`: measures every case, or those named, and writes what came out into docs/benchmarks.md."""

import argparse
import importlib
from pathlib import Path

from tests.bench import page
from tests.bench.turns import Effort

CASES = ("loops", "inference", "callbacks", "start", "epochs", "growth", "others")


def main(arguments: list[str] | None = None) -> None:
    """Measures the cases one after the other; each is shown and written as soon as it is done."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=CASES, default=CASES, metavar="NAME", help=", ".join(CASES))
    parser.add_argument("--rounds", type=int, default=5, help="how often each contestant runs (default: 5)")
    parser.add_argument("--tiny", action="store_true", help="only see that everything runs; implies --no-write")
    parser.add_argument("--no-write", action="store_true", help="leave docs/benchmarks.md as it is")
    parser.add_argument("--jax", type=Path, default=Path(".venv-jax/bin/python"), help="a Python with Keras and JAX")
    parser.add_argument(
        "--lightning", type=Path, default=Path(".venv-lightning/bin/python"), help="a Python with Lightning"
    )
    options = parser.parse_args(arguments)
    effort = Effort(options.rounds, options.tiny, jax=options.jax, lightning=options.lightning)
    for name in options.only:
        section = importlib.import_module(f"tests.bench.{name}").measure(effort)
        text = f"{section}\n\n{page.machine()}"
        print(text, flush=True)
        if not (options.no_write or options.tiny):
            page.write(name, text)


if __name__ == "__main__":
    main()
