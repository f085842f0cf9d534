import base64
import io

from kedro.io.core import Version
from PIL import Image

from onex_distill.datasets import PreviewedImageDataset


def picture(colour):
    image = Image.new("RGB", (5, 3), colour)
    image.putpixel((1, 2), (1, 2, 3))
    return image


def test_the_preview_is_the_image_as_png(tmp_path):
    dataset = PreviewedImageDataset(filepath=(tmp_path / "grid.png").as_posix())
    dataset.save(picture("red"))
    shown = Image.open(io.BytesIO(base64.b64decode(dataset.preview())))
    assert shown.format == "PNG"
    assert shown.tobytes() == picture("red").tobytes()


def test_the_preview_shows_the_pinned_version(tmp_path):
    path = (tmp_path / "grid.png").as_posix()
    for version, colour in (("1", "red"), ("2", "blue")):
        PreviewedImageDataset(filepath=path, version=Version(None, version)).save(picture(colour))
    preview = PreviewedImageDataset(filepath=path, version=Version("1", None)).preview()
    assert Image.open(io.BytesIO(base64.b64decode(preview))).getpixel((0, 0)) == (255, 0, 0)
