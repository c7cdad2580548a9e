"""The page of how many lines each training takes; `python -m tests.lines_page` writes it.

`tests/test_lines_page.py` holds the page to the files, and the trainings by Keras to those by this package.
"""

import ast
import io
import tokenize
from collections.abc import Collection
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/design/lines-of-code.md"
FILES = ROOT / "tests/lines"

TRAININGS = {
    "gan": "GAN, with a penalty on the critic's slope",
    "vae": "variational auto-encoder",
    "distillation": "distillation",
    "contrastive": "contrastive (SimCLR)",
    "fine_tuning": "fine-tuning in two stages",
    "reinforce": "REINFORCE on CartPole",
    "ppo": "PPO on CartPole",
}
# What of a file of the zoo is counted: the Task, and what it calls that is neither a network nor data.
SHIPPED = {
    "gan": ("adversarial.py", ("LOSS", "GAN")),
    "vae": ("autoencoder.py", ("Gaussian", "VariationalAutoencoder", "VariationalInference", "nats")),
    "distillation": ("distillation.py", ("SMALLEST", "softened", "Distillation", "share", "check_classes")),
    "contrastive": ("contrastive.py", ("SimCLR", "nt_xent", "found", "compare")),
    "reinforce": ("reinforcement.py", ("Reinforce", "_log_probability", "_standardized", "_outcome")),
    "ppo": ("reinforcement.py", ("PPO", "_log_probability", "_standardized", "_outcome")),
}
AS_SHIPPED = ("gan",)  # whose file `ours_<name>.py` takes the zoo's Task
NOT_CODE = {
    tokenize.COMMENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
    tokenize.INDENT,
    tokenize.NEWLINE,
    tokenize.NL,
}


def lines_of(source: str, names: Collection[str] | None = None) -> int:
    """Lines of code, without blank ones, comments, docstrings and imports.

    Args:
        source: A module.
        names: Functions, classes and constants at its top that are counted; None: everything.

    Raises:
        KeyError: There is no such name.
    """
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    code = {line for token in tokens if token.type not in NOT_CODE for line in _span(token.start[0], token.end[0])}
    tree = ast.parse(source)
    for node in ast.walk(tree):
        code -= _uncounted(node)
    if names is None:
        return len(code)
    spans = {name: lines for node in tree.body for name, lines in _named(node)}
    return sum(len(code & spans[name]) for name in names)


def count(tool: str, name: str) -> int:
    """Lines of one training by "ours", "keras" or "lightning"."""
    own = lines_of((FILES / f"{tool}_{name}.py").read_text())
    return own + _task_of_zoo(name) if tool == "ours" and name in AS_SHIPPED else own


def count_shipped(name: str) -> int:
    """Lines of one training by the zoo's Task, which does more."""
    return _task_of_zoo(name) + lines_of((FILES / f"ours_{name}.py").read_text(), ["train"])


def page() -> str:
    """The whole page, Markdown."""
    play = lines_of((FILES / "lightning_episodes.py").read_text())
    arena = sum(lines_of((ROOT / "zoo" / file).read_text()) for file in ("arena.py", "episodes.py"))
    return TEXT.format(table=_table(), play=play, arena=arena)


def _task_of_zoo(name: str) -> int:
    file, names = SHIPPED[name]
    return lines_of((ROOT / "zoo" / file).read_text(), names)


def _table() -> str:
    rows = []
    for name, title in TRAININGS.items():
        counts = [count(tool, name) for tool in ("ours", "keras", "lightning")]
        least = min(counts)
        shown = [f"**{number}**" if number == least else str(number) for number in counts]
        rows.append([title, *shown, str(count_shipped(name)) if name in SHIPPED else "-"])
    totals = [sum(count(tool, name) for name in TRAININGS) for tool in ("ours", "keras", "lightning")]
    rows.append(["together", *map(str, totals), ""])
    head = ["training", "this package", "Keras", "Lightning", "the zoo's, which do more"]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---", *["--:"] * 4], *rows])


def _span(first: int, last: int) -> set[int]:
    return set(range(first, last + 1))


def _uncounted(node: ast.AST) -> set[int]:
    """The lines of a docstring, or of an import."""
    if isinstance(node, (ast.Import, ast.ImportFrom)):
        return _span(node.lineno, node.end_lineno or node.lineno)
    if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
        return _span(node.body[0].lineno, node.body[0].end_lineno or 0)
    return set()


def _named(node: ast.stmt) -> list[tuple[str, set[int]]]:
    """What a statement at the top of a module defines, with its lines."""
    if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        return [(node.name, _span(first, node.end_lineno or first))]
    if isinstance(node, ast.Assign):
        lines = _span(node.lineno, node.end_lineno or node.lineno)
        return [(target.id, lines) for target in node.targets if isinstance(target, ast.Name)]
    return []


TEXT = """# Lines of code: each training three times

PLACEHOLDER {table} {play} {arena}
"""

if __name__ == "__main__":
    PAGE.write_text(page())
