"""Cutting a stream into JPEGs does not depend on where its chunks end."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from preprocessing.media.jpeg import JpegSplitter, jpeg_size


def jpeg(height: int, width: int, seed: int, comment: bytes = b"") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=60, comment=comment)
    return buffer.getvalue()


def parts(images: list[bytes]) -> bytes:
    """As ffmpeg writes them: a line between images, two before each."""
    head = b"Content-type: image/jpeg\r\nContent-length: %d\r\n\r\n"
    return b"--ffmpeg\r\n" + b"".join(head % len(image) + image + b"\r\n--ffmpeg\r\n" for image in images)


# A comment that holds the end marker must not end the image.
IMAGES = [jpeg(9 + seed, 20, seed, b"x\xff\xd9y" if seed % 2 else b"") for seed in range(4)]


@given(st.lists(st.integers(1, 400), max_size=60))
def test_any_chunks_give_the_same_images(sizes: list[int]) -> None:
    stream, splitter, found, at = parts(IMAGES), JpegSplitter(), [], 0
    for size in [*sizes, len(stream)]:
        found += splitter.feed(stream[at : at + size])
        at += size
    assert found == IMAGES
    assert splitter.pending == len(b"\r\n--ffmpeg\r\n")


def test_unfinished_image_is_pending_and_garbage_is_refused() -> None:
    splitter = JpegSplitter()
    whole = parts(IMAGES[:1]).removesuffix(b"\r\n--ffmpeg\r\n")
    assert list(splitter.feed(whole[:-1])) == []
    assert splitter.pending == len(whole) - 1
    assert list(splitter.feed(whole[-1:])) == IMAGES[:1] and splitter.pending == 0
    with pytest.raises(ValueError, match="expected the lines before a JPEG"):
        list(JpegSplitter().feed(b"GIF89a..." * 30))
    with pytest.raises(ValueError, match="expected a JPEG, found b'GIF8'"):
        list(JpegSplitter().feed(parts([b"GIF89a"])))


def test_size() -> None:
    assert jpeg_size(IMAGES[2]) == (11, 20)
    for data in (b"", b"\xff\xd8", b"no", IMAGES[0][:30]):
        with pytest.raises(ValueError, match="JPEG"):
            jpeg_size(data)
