"""The digits: sizes, split, normalisation and the three shapes."""

from __future__ import annotations

import pytest
import torch

from models.digits import digits


def test_split_is_stratified_and_the_same_every_time() -> None:
    data, again = digits((1, 32, 32)), digits((1, 32, 32))
    assert (len(data.train_images), len(data.test_images)) == (1347, 450)
    assert torch.equal(data.test_images, again.test_images)
    train, test = data.train_labels.bincount(), data.test_labels.bincount()
    assert len(train) == len(test) == 10
    assert float((test / train).max() - (test / train).min()) < 0.02


def test_no_digit_is_both_trained_on_and_held_out() -> None:
    # Scikit-learn's 1797 images are all different, so equal images would be the same digit.
    data = digits((1, 32, 32))
    together = torch.cat([data.train_images, data.test_images]).flatten(1)
    assert len(together.unique(dim=0)) == 1797


def test_training_images_are_normalised() -> None:
    images = digits((1, 32, 32)).train_images
    assert images.dtype == torch.float32
    assert float(images.mean()) == pytest.approx(0, abs=1e-4)
    assert float(images.std()) == pytest.approx(1, abs=1e-4)


def test_colour_and_sequences_hold_the_grey_image() -> None:
    grey, colour, sequence = (digits(shape).test_images for shape in ((1, 32, 32), (3, 32, 32), (32, 32)))
    torch.testing.assert_close(colour, grey.expand(-1, 3, -1, -1))
    assert torch.equal(sequence, grey[:, 0])


def test_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not as \(3, 224, 224\)"):
        digits((3, 224, 224))
