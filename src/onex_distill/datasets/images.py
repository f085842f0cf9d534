"""Images as catalog entries that kedro viz shows."""

import base64
import io

from kedro_datasets._typing import ImagePreview
from kedro_datasets.pillow import ImageDataset


class PreviewedImageDataset(ImageDataset):
    """Pillow's dataset with a preview."""

    def preview(self) -> ImagePreview:
        """The image as base64-encoded PNG."""
        buffer = io.BytesIO()
        self.load().save(buffer, format="PNG")
        return ImagePreview(base64.b64encode(buffer.getvalue()).decode())
