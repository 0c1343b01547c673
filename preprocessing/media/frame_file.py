"""One JPEG of a folder of frames: the bytes of a file go in, a JPEG that every reader shows alike comes out."""

from __future__ import annotations

import io

import simplejpeg
from PIL import Image, ImageOps

from preprocessing.media.jpeg import jpeg_header, trim_jpeg

MAX_PIXELS = 8192 * 8192
_ORIENTATION = 0x0112
_UPRIGHT = 1
_QUALITY = 95


def read_frame(data: bytes) -> tuple[bytes, str]:
    """The JPEG, and what its decoder complains of, if it does.

    It stays byte for byte as it is, but for what stands behind its end, which is left out. One that is turned by its
    EXIF data, or that has four colours (CMYK), which the networks' decoder cannot read, is written anew, upright and in
    RGB. Raises ValueError with the reason for what cannot be shown.
    """
    header = jpeg_header(data)
    if header.height * header.width > MAX_PIXELS:
        raise ValueError(f"{header.width}x{header.height} pixels are too many")
    jpeg = trim_jpeg(data)
    if header.num_colours > 3 or (header.has_exif and _is_turned(jpeg)):
        jpeg = _write_anew(jpeg)
    return jpeg, _complaint(jpeg)


def _is_turned(jpeg: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(jpeg)) as image:
            return image.getexif().get(_ORIENTATION, _UPRIGHT) in range(_UPRIGHT + 1, 9)
    except (OSError, ValueError, SyntaxError, KeyError, TypeError):  # EXIF data that are broken turn nothing
        return False


def _write_anew(jpeg: bytes) -> bytes:
    try:
        with Image.open(io.BytesIO(jpeg)) as image:
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"it cannot be decoded: {error}") from error
    buffer = io.BytesIO()
    upright.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()


def _complaint(jpeg: bytes) -> str:
    """What the decoder warns of, from a decoding at an eighth of the size. Raises ValueError if it refuses."""
    options = {"colorspace": "RGB", "min_height": 1, "min_width": 1, "min_factor": 1, "fastdct": True}
    try:
        simplejpeg.decode_jpeg(jpeg, strict=True, **options)
    except ValueError as warning:
        try:
            simplejpeg.decode_jpeg(jpeg, strict=False, **options)
        except ValueError as error:
            raise ValueError(f"it cannot be decoded: {error}") from error
        return str(warning)
    return ""
