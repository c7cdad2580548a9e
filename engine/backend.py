"""Importing this module makes sure that Keras runs on TensorFlow, the only backend of this package."""

import os

from engine.errors import BackendError
from engine.importing import IMPORT

_ADVICE = (
    "engine trains through tf.function and tf.distribute and needs Keras on TensorFlow. Set the environment "
    "variable KERAS_BACKEND=tensorflow, or unset it, before Python starts."
)

# Asked for before Keras is imported: Keras would fail on a backend that is not installed.
_wanted = os.environ.get("KERAS_BACKEND") or "tensorflow"
if _wanted != "tensorflow":
    raise BackendError(f"KERAS_BACKEND is {_wanted!r}. {_ADVICE}")

import keras  # noqa: E402  (after the check above)

IMPORT.note_keras()

if keras.backend.backend() != "tensorflow":  # named in Keras's own configuration file
    raise BackendError(f"Keras runs on the backend {keras.backend.backend()!r}. {_ADVICE}")
