"""Folders of frames: read in the right order and as they look, or said."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adafocus.data.decoding import decode_all
from preprocessing.media.extraction import Extraction
from preprocessing.media.frame_folder import FrameFolder
from preprocessing.media.frame_names import order_frames
from preprocessing.media.jpeg import EOI, jpeg_size
from preprocessing.schema import ExtractionSpec


def picture(number: int, mode: str = "RGB", size: tuple[int, int] = (32, 24)) -> Image.Image:
    """The upper left is as bright as the number says, the rest is grey."""
    image = Image.new("RGB", size, (90, 90, 90))
    image.paste((20 * number, 20 * number, 20 * number), (0, 0, size[0] // 2, size[1] // 2))
    return image.convert(mode)


def jpeg(number: int, mode: str = "RGB", size: tuple[int, int] = (32, 24), **options: object) -> bytes:
    buffer = io.BytesIO()
    picture(number, mode, size).save(buffer, "JPEG", quality=95, **options)
    return buffer.getvalue()


def read(folder: Path, files: dict[str, bytes]) -> tuple[list[bytes], Extraction]:
    folder.mkdir(exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    with FrameFolder(folder, ExtractionSpec()) as frames:
        jpegs = list(frames)
    return jpegs, frames.result


def look(jpegs: list[bytes]) -> list[np.ndarray]:
    """The frames as training decodes them; it has to take every frame that a folder gives."""
    arrays = [np.frombuffer(bytearray(data), np.uint8) for data in jpegs]
    height, width = jpeg_size(jpegs[0])
    return [frame.permute(1, 2, 0).numpy().copy() for frame in decode_all(arrays, (height, width), end=10, fast=True)]


def numbers(jpegs: list[bytes]) -> list[int]:
    return [round(float(frame[2:8, 2:12].mean()) / 20) for frame in look(jpegs)]


@pytest.mark.parametrize(
    ("names", "order", "said"),
    [
        (["2.jpg", "10.jpg", "1.jpg"], "1 2 10", ""),
        (["f2.jpg", "f10.jpg", "f009.jpg", "f8.jpg", "f7.jpg"], "f2 f7 f8 f009 f10", "4 frames are missing behind f2"),
        (["img_00001.jpg", "img_00002.JPG", "img_00003.jpeg"], "img_00001 img_00002 img_00003", ""),
        (["1.jpg", "2.jpg", "02.jpg", "3.jpg"], "1 02 3", "2.jpg: has the number of 02.jpg, left out"),
        (["1.jpg", "2.jpg", "2.jpeg", "3.jpg"], "1 2 3", "has the number of"),
        (["5.jpg", "10.jpg", "15.jpg", "20.jpg"], "5 10 15 20", ""),
        (["5.jpg", "10.jpg", "20.jpg", "25.jpg", "30.jpg"], "5 10 20 25 30", "1 frames are missing behind 10.jpg"),
        (["1.jpg", "2.jpg", "3.jpg", "cover.jpg"], "1 2 3", "cover.jpg: not named like the other frames, left out"),
        (["1.jpg", "2.jpg", "3.jpg", "2 (1).jpg"], "1 2 3", "2 (1).jpg: not named like"),
        (["1.jpg", "2.jpg", "3.jpg", "._1.jpg", "._2.jpg", ".hidden.jpg"], "1 2 3", ""),
        (["t0033.jpg", "t0066.jpg", "t0100.jpg", "t0133.jpg"], "t0033 t0066 t0100 t0133", ""),
        (["a.jpg", "c.jpg", "b.jpg"], "a b c", ""),
        (["s2_f1.jpg", "s1_f2.jpg", "s1_f1.jpg", "s10_f1.jpg"], "s1_f1 s1_f2 s2_f1 s10_f1", ""),
        (["img_1.jpg", "img_2.jpg", "flow_x_1.jpg", "flow_x_2.jpg"], "",
         "files of several kinds have the same numbers (flow_x_1.jpg, img_1.jpg): leave one kind in the folder"),
        (["left1.jpg", "left2.jpg", "right3.jpg", "right4.jpg"], "left1 left2 right3 right4", ""),
        (["7.jpg"], "7", ""),
        ([], "", ""),
    ],
)  # fmt: skip
def test_names(names: list[str], order: str, said: str) -> None:
    ordered, oddities = order_frames(names)
    assert [name.rpartition(".")[0] for name in ordered] == order.split()
    assert bool(oddities) == bool(said) and said in "; ".join(oddities)


def behind(data: bytes) -> Callable[[bytes], bytes]:
    return lambda whole: whole + data


def before_each_marker(whole: bytes) -> bytes:
    """Any number of 0xFF may stand before a marker."""
    return whole[:2] + b"\xff\xff\xff" + whole[2:]


LONG = {"icc_profile": bytes(9000), "exif": b"Exif\0\0" + bytes(20_000), "comment": b"x\xff\xd9y" * 900}
LEGAL: dict[str, tuple[dict[str, object], Callable[[bytes], bytes]]] = {
    "long metadata": (LONG, bytes),
    "fill bytes": ({}, before_each_marker),
    "zeros behind": ({}, behind(bytes(77))),
    "a trailer": ({}, behind(b"SEFT trailer of a phone \xff\xd8\xff\xe0")),
    "another picture behind": ({}, lambda whole: whole + whole),
    "progressive": ({"progressive": True}, bytes),
    "restart marks": ({"restart_marker_blocks": 1}, bytes),
    "grey": ({"mode": "L"}, bytes),
    "CMYK": ({"mode": "CMYK"}, bytes),
    "4:4:4": ({"subsampling": 0}, bytes),
}


@pytest.mark.parametrize("kind", LEGAL)
def test_every_legal_jpeg_is_read(kind: str, tmp_path: Path) -> None:
    options, change = LEGAL[kind]
    plain = {f"{number}.jpg": jpeg(number, **options) for number in range(1, 5)}
    jpegs, result = read(tmp_path / "a", {name: change(data) for name, data in plain.items()})
    assert (result.status, result.error, result.num_frames) == ("ok", "", 4)
    assert all(data.endswith(EOI) for data in jpegs)
    assert numbers(jpegs) == [1, 2, 3, 4]
    if kind not in ("CMYK", "fill bytes"):
        assert jpegs == list(plain.values())  # byte for byte, but for what was behind the end


@pytest.mark.parametrize("orientation", range(1, 9))
def test_frames_are_turned_upright(orientation: int, tmp_path: Path) -> None:
    turns = {2: [0], 3: [3], 4: [1], 5: [5], 6: [2], 7: [6], 8: [4]}  # what a camera did to the picture that is meant
    stored = picture(10)
    for turn in turns.get(orientation, []):
        stored = stored.transpose(Image.Transpose(turn))
    exif = Image.Exif()
    exif[0x0112] = orientation
    buffer = io.BytesIO()
    stored.save(buffer, "JPEG", quality=95, exif=exif)
    jpegs, result = read(tmp_path / "a", {f"{number}.jpg": buffer.getvalue() for number in range(3)})
    assert (result.status, result.height, result.width) == ("ok", 24, 32), result.error
    assert np.abs(look(jpegs)[0][:10].astype(int) - np.asarray(picture(10))[:10].astype(int)).mean() < 3
    again, _ = read(tmp_path / "a", {})
    assert again == jpegs and (orientation > 1 or jpegs[0] == buffer.getvalue())


@pytest.mark.parametrize("ending", [".jpe", ".jfif", ".JPEG"])
def test_all_endings_of_jpegs_are_frames(ending: str, tmp_path: Path) -> None:
    files = {f"{number}{ending if number % 2 else '.jpg'}": jpeg(number) for number in range(1, 7)}
    jpegs, result = read(tmp_path, files)
    assert numbers(jpegs) == [1, 2, 3, 4, 5, 6] and result.status == "ok"


@pytest.mark.parametrize("ending", [".png", ".WEBP", ".tif"])
def test_pictures_of_another_kind_are_said(ending: str, tmp_path: Path) -> None:
    files = {f"{number}{ending if number % 2 else '.jpg'}": jpeg(number) for number in range(1, 7)}
    _, result = read(tmp_path / "some", files)
    assert result.status == "damaged" and f"3 pictures that are no JPEGs are left out (1{ending})" in result.error
    _, result = read(tmp_path / "all", {f"{number}{ending}": b"" for number in range(3)})
    assert result.status == "decode_failed" and "3 pictures that are no JPEGs" in result.error


def test_names_that_are_no_files_are_said(tmp_path: Path) -> None:
    for name, target in {"4.jpg": "nowhere", "5.jpg": "5.jpg"}.items():
        (tmp_path / name).symlink_to(target)
    (tmp_path / "6.jpg").mkdir()
    jpegs, result = read(tmp_path, {f"{number}.jpg": jpeg(number) for number in range(1, 4)})
    assert len(jpegs) == 3 and result.status == "damaged"
    assert result.error == "4.jpg: it is no file; 5.jpg: it is no file; 6.jpg: it is no file"


def test_what_cannot_be_shown_is_said_and_never_handed_on(tmp_path: Path) -> None:
    good = {f"{number}.jpg": jpeg(number) for number in range(1, 8)}
    broken = bytearray(good["2.jpg"])
    broken[-30:-10] = b"\xff\x55" * 10
    twelve_bit = good["3.jpg"].replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c")
    huge = bytearray(good["7.jpg"])
    at = huge.index(b"\xff\xc0")
    huge[at + 5 : at + 9] = struct.pack(">HH", 65_000, 65_000)
    wrong = {
        "2.jpg": bytes(broken),
        "3.jpg": twelve_bit,
        "4.jpg": good["4.jpg"][:-40],
        "5.jpg": b"GIF89a",
        "6.jpg": jpeg(6, size=(16, 16)),
        "7.jpg": bytes(huge),
    }
    jpegs, result = read(tmp_path / "a", good | wrong)
    assert result.status == "damaged" and "(6 in all)" in result.error and "2.jpg: " in result.error
    assert numbers(jpegs)[0] == 1 and len(jpegs) == result.num_frames == 2
    for name, data in wrong.items():
        folder = tmp_path / f"only-{name}"
        _, result = read(folder, {"1.jpg": good["1.jpg"], name: data})
        assert result.status == "damaged" and name in result.error
    _, result = read(tmp_path / "none", {"readme.txt": b"", "._1.jpg": b"\0\5\26\7"})
    assert (result.status, result.error) == ("decode_failed", "there is no JPEG in the folder")
