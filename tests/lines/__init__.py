"""The same trainings three times: by this package, by Keras, by PyTorch Lightning; `tests.lines_page` counts them.

Each file holds the training logic and a function `train`, which a person calls with networks and data. Those of
Lightning need an environment of their own: see `tests/lines/run_lightning.py`.
"""
