"""Hostile media: small valid files of every container, and what a seeded source of mischief makes of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

H264 = ("-c:v", "libx264", "-g", 6, "-preset", "ultrafast")
KINDS: dict[str, tuple[object, ...]] = {
    "mp4": (*H264, "-movflags", "+faststart"),
    "late.mp4": H264,
    "fragments.mp4": (*H264, "-movflags", "frag_keyframe+empty_moov"),
    "mov": ("-c:v", "mjpeg"),
    "hevc.mp4": ("-c:v", "libx265", "-preset", "ultrafast", "-x265-params", "log-level=none"),
    "mkv": H264,
    "ffv1.mkv": ("-c:v", "ffv1"),
    "webm": ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", 8),
    "vp8.webm": ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", 8),
    "avi": ("-c:v", "mpeg4"),
    "ts": ("-c:v", "mpeg2video"),
    "mpg": ("-c:v", "mpeg1video"),
    "flv": ("-c:v", "flv"),
    "wmv": ("-c:v", "wmv2"),
    "ogv": ("-c:v", "libtheora"),
    "3gp": ("-c:v", "mpeg4"),
}
"""Containers, by the ending of the file's name, and the encoder's options for each."""
_ABSURD = (
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x01",
    b"\x80\0\0\0",
)


def make_valid(folder: Path, run_ffmpeg: Callable[..., None]) -> dict[str, bytes]:
    """Twenty frames in each container, by its ending."""
    source = folder / "source.mkv"
    run_ffmpeg("-f", "lavfi", "-i", "testsrc2=s=64x48:d=0.8:r=25", "-c:v", "ffv1", source)
    files = {}
    for ending, options in KINDS.items():
        path = folder / f"valid.{ending}"
        run_ffmpeg("-i", source, "-pix_fmt", "yuv420p" if ending != "mov" else "yuvj420p", *options, path)
        files[ending] = path.read_bytes()
    return files


def hostile_files(valid: dict[str, bytes], count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """`count` names and contents, one container after the other; the same ones for the same seed."""
    chance = random.Random(seed)
    endings = sorted(valid)
    for number in range(count):
        ending = endings[number % len(endings)]
        data = bytearray(valid[ending])
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            data = chance.choice(_MISCHIEF)(data, chance)
        yield f"{number:04d}.{ending}", bytes(data)


def _place(data: bytearray, chance: random.Random) -> int:
    """A place in the data; half of them are near the beginning, where headers are."""
    return int(len(data) * chance.random() ** chance.choice((1, 4)))


def _cut(data: bytearray, chance: random.Random) -> bytearray:
    return data[: _place(data, chance)]


def _behead(data: bytearray, chance: random.Random) -> bytearray:
    return data[_place(data, chance) :]


def _flip(data: bytearray, chance: random.Random) -> bytearray:
    for _ in range(chance.choice((1, 8, 100)) if data else 0):
        data[min(_place(data, chance), len(data) - 1)] ^= 1 << chance.randrange(8)
    return data


def _overwrite(data: bytearray, chance: random.Random) -> bytearray:
    at, length = _place(data, chance), chance.choice((4, 64, 2000))
    data[at : at + length] = chance.choice((bytes(length), b"\xff" * length, chance.randbytes(length)))
    return data


def _absurd(data: bytearray, chance: random.Random) -> bytearray:
    """Sizes, counts, times and dimensions that no file has."""
    for _ in range(chance.choice((1, 5, 30))):
        at = _place(data, chance)
        data[at : at + 4] = chance.choice(_ABSURD)
    return data


def _swap(data: bytearray, chance: random.Random) -> bytearray:
    """Two pieces change places; in .mp4 files these are atoms."""
    marks = [data.find(name) - 4 for name in (b"ftyp", b"moov", b"trak", b"stbl", b"stts", b"stsz", b"stco", b"mdat")]
    places = sorted(mark for mark in marks if mark >= 0)
    if len(places) < 4:
        places = sorted(_place(data, chance) for _ in range(4))
    first, second = sorted(chance.sample(range(len(places) - 1), 2))
    a, b, c, d = places[first], places[first + 1], places[second], places[second + 1]
    return data[:a] + data[c:d] + data[b:c] + data[a:b] + data[d:]


def _repeat(data: bytearray, chance: random.Random) -> bytearray:
    first, last = sorted((_place(data, chance), _place(data, chance)))
    return data[:last] + data[first:last] * chance.choice((1, 3)) + data[last:]


def _mix(data: bytearray, chance: random.Random) -> bytearray:
    """A file that begins as one container and goes on as another."""
    return bytearray(b"\x1a\x45\xdf\xa3") + data[4:] if chance.random() < 0.5 else data + data


_MISCHIEF = (_cut, _behead, _flip, _overwrite, _absurd, _swap, _repeat, _mix)
