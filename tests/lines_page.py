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

Written by `python -m tests.lines_page` from the files in `tests/lines/`; a test holds it to them. The least of a row is
bold.

{table}

## What is counted

The training: the step, its losses, optimizers, logs, evaluation, saving and resuming. Networks and data are given to
all three, and are not counted; nor are imports, blank lines, comments and docstrings. All are laid out by ruff, 120
columns wide. Each is written as its own tool wants it, as short as it gets while it does what the others do:

- each term of the loss under a name of its own, as a mean over each epoch;
- evaluation beside the training, but for the GAN and for SimCLR;
- a checkpoint every 100 steps, from which the same program goes on when it is called again.

Those by this package and by Keras do the same in numbers too: from the same weights, on the same data, they come to
the same weights and the same logs
(`test_lines_page.py::test_what_is_counted_trains_alike_here_and_in_keras`). Those by Lightning are the same in PyTorch.

The last column is about the Tasks that `zoo` ships. They do more than the others: they check their arguments, two
replicas train as one, distillation takes images without labels, the auto-encoder can be saved as one file.

## What the counts do not show

Each training was killed in the middle of an epoch, dozens of steps behind a checkpoint, and called again. Beside the
same training that nobody killed:

| | this package | Keras 3.15 | Lightning 2.6 |
|---|---|---|---|
| weights at the end | the same, to the bit | others | the same, to the bit |
| logs of the interrupted epoch | the same, to the bit | others | of the batches since it went on |
| history | whole | of the epochs since it went on | in the files of a logger |

**Keras**: `BackupAndRestore` saves weights, optimizers and the number of the epoch, and begins that epoch anew, though
its first steps are in the weights already. The order of the data, and where a `SeedGenerator` stands, are not saved.
It wants models and optimizers built beforehand. Seen by `python -m tests.lines.resumed`, which tries this package too.

**Lightning**: the order of the data goes on with the loader of another package, torchdata's `StatefulDataLoader`;
random numbers do where the module has a generator of its own and two hooks that save it. Both are counted. The means
that `self.log` takes over an epoch begin anew. `every_n_train_steps` counts updates, of which the GAN has two a batch
and PPO six. Seen by `python -m tests.lines.run_lightning`, run once, in an environment of its own: lightning 2.6.6,
torch 2.13.0, torchdata 0.11.0.

## Where they differ

- **Terms of `add_loss` and regularizers** are counted here at each call of each model. In Keras, `compute_loss` counts
  those of a model's last call, and a `train_step` of one's own those that it adds by hand; these leave them out, for
  the networks have none. PyTorch knows no such thing.
- **Distillation** is shortest in Keras: all of it is in `compute_loss`. A model that overrides it trains in a `Trainer`
  as it is (`test_overrides.py`).
- **The auto-encoder and fine-tuning** need no Task and no `train_step`: the model is Keras's, and `Trainer(model).fit`
  stands for `model.fit`. Of the auto-encoder, the Trainer itself names the terms of the loss.
- **The GAN** updates both networks from one pass of both in Keras and here; in Lightning the generator meets the
  critic that was just updated, which saves telling apart whose gradients are whose.
- **Episodes** are played by `zoo.arena` and `zoo.episodes` ({arena} lines) for this package and for Keras, in the
  graph, and by `tests/lines/lightning_episodes.py` ({play} lines) for Lightning, in plain Python. Neither is counted.
"""

if __name__ == "__main__":
    PAGE.write_text(page())
