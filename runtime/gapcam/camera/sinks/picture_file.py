"""A picture as the bytes of an image file."""

from __future__ import annotations

import cv2

from gapcam.errors import DataError
from gapcam.frame import Frame


def encoded(picture: Frame, image_format: str, quality: int) -> bytes:
    """A picture as JPEG or PNG.

    Args:
        picture: H x W x 3 uint8 BGR.
        image_format: "jpg" or "png".
        quality: of JPEG, 1 to 100.

    Raises:
        DataError: the format cannot hold it: JPEG ends at 65535 pixels.
    """
    # PNG is compressed quickly rather than well: a camera does not wait.
    settings = [cv2.IMWRITE_JPEG_QUALITY, quality] if image_format == "jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 1]
    why = "OpenCV gave no reason"
    try:
        fits, data = cv2.imencode(f".{image_format}", picture, settings)
        if fits:
            return data.tobytes()
    except cv2.error as error:
        why = " ".join(str(error).split())
    height, width = picture.shape[:2]
    raise DataError(f"a picture of {width} x {height} pixels does not fit {image_format}: {why}; choose another format")
