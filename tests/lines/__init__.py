"""The same trainings three times: by this package, by Keras alone, by PyTorch Lightning; `tests.lines_page` counts them.

Each file holds the training logic and a function `train`, which a person calls with networks and data. What Lightning's
files need is no part of this project's environment: see `tests/lines/run_lightning.py`.
"""
