"""The same trainings three times: with this package, with Keras alone, with PyTorch Lightning; `tests.lines_page` counts.

Each file holds the training logic and one function `train` that a person calls with networks and data. The files of
Lightning need an environment of their own, and say nothing to the other tests: see `tests/lines/run_lightning.py`.
"""
