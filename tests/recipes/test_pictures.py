import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread

from recipes.pictures import grid, nearest, save


@given(st.integers(1, 7), st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 3]))
def test_each_picture_stands_in_its_row_and_column(number, columns, height, width, channels):
    """Cutting the sheet along its lines gives the pictures back, in order; what is lacking is grey like the lines."""
    images = np.random.default_rng(0).random((number, height, width, channels), np.float32)
    sheet = grid(images, columns=columns)
    cells = [
        sheet[top : top + height, left : left + width]
        for top in range(1, len(sheet), height + 1)
        for left in range(1, sheet.shape[1], width + 1)
    ]

    assert np.array_equal(images, cells[:number])
    assert {np.float32(0.35)} == set(sheet[0].ravel()) | {value for cell in cells[number:] for value in cell.ravel()}
    assert 0 == len(cells) % columns


def test_a_saved_picture_has_its_pixels_twice_in_each_direction(tmp_path):
    picture = np.array([[0.0, 1.0], [0.5, 0.25]], np.float32)[..., np.newaxis]
    save(tmp_path / "picture.png", picture)
    read = imread(tmp_path / "picture.png")[..., 0]

    assert (4, 4) == read.shape
    np.testing.assert_allclose(picture[..., 0].repeat(2, axis=0).repeat(2, axis=1), read, atol=0.51 / 255)


def test_the_nearest_image_is_the_one_that_was_changed_least():
    images = np.random.default_rng(0).random((20, 4, 4, 1), np.float32)
    order = np.random.default_rng(1).permutation(20)

    assert order.tolist() == nearest(images[order] + 0.01, images).tolist()
