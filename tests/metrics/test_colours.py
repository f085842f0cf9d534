import colorsys

import numpy as np
import pytest
import torch

from onex_distill.metrics.colours import contrast, saturation
from photographs import photographs


def _images(*photos):
    return torch.stack([torch.from_numpy(np.array(photo)).permute(2, 0, 1) for photo in photos])


def test_saturation_is_hsvs_on_a_photograph():
    image = photographs()["chelsea.png"].resize((24, 16))
    expected = np.mean([colorsys.rgb_to_hsv(*pixel)[1] for pixel in np.array(image).reshape(-1, 3) / 255])
    assert float(saturation(_images(image))[0]) == pytest.approx(expected, rel=1e-9)


def test_contrast_is_the_deviation_of_brightness_on_a_photograph():
    image = photographs()["chelsea.png"]
    brightness = np.array(image) / 255 @ np.array([0.299, 0.587, 0.114])
    assert float(contrast(_images(image))[0]) == pytest.approx(brightness.std(), rel=1e-9)


def test_closed_forms():
    grey = torch.full((1, 3, 4, 4), 90, dtype=torch.uint8)
    red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    halves = torch.zeros(1, 3, 4, 4, dtype=torch.uint8)
    halves[..., :2] = 255
    images = torch.cat([grey, red, halves, torch.zeros_like(grey)])
    assert saturation(images).tolist() == [0, 1, 0, 0]
    assert contrast(images).tolist() == pytest.approx([0, 0, 0.5, 0], abs=1e-12)
