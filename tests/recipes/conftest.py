import numpy as np
import pytest
from sklearn.datasets import load_digits


@pytest.fixture
def few_digits(tmp_path):
    """A file of 8x8 digits: 144 images to train, 16 to validate, 100 to test."""
    digits = load_digits()
    images, labels = digits.images / 16, digits.target
    path = tmp_path / "digits.npz"
    np.savez(path, x_train=images[:160], y_train=labels[:160], x_test=images[160:260], y_test=labels[160:260])
    return str(path)
