"""Lists the recipes, one line each, without importing them.

```bash
python -m recipes
```
"""

import ast
from collections.abc import Iterator
from pathlib import Path


def recipes() -> Iterator[tuple[str, str]]:
    """Finds every module of this package that can be run: one that has a function `main`.

    Yields:
        The module's name and the first line of its docstring.
    """
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        module = ast.parse(path.read_text(encoding="utf-8"))  # importing it would start TensorFlow
        if any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in module.body):
            yield path.stem, (ast.get_docstring(module) or "").partition("\n")[0]


if __name__ == "__main__":
    for name, summary in recipes():
        print(f"python -m recipes.{name}    {summary}")
