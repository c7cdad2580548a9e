"""Recipes: whole trainings to run, read from top to bottom, and copy from.

```bash
python -m recipes                     # lists them
python -m recipes.inception --help    # says what one takes
python -m recipes.inception           # runs it; what it leaves lies in runs/inception/
```
"""
