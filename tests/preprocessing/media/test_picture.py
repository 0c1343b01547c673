"""Frames have square pixels, stand upright, keep one shape and show true colours."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from preprocessing.ffmpeg.program import has_filters
from preprocessing.media import frame_stream
from preprocessing.media.extraction import Extraction
from preprocessing.media.frame_stream import extract_frames
from preprocessing.media.sampled import sample_frames
from preprocessing.schema import ExtractionSpec

SPEC = ExtractionSpec(height=48)
Run = Callable[..., None]
CIRCLE = "geq=lum='if(lt(hypot(X-W/2,(Y-H/2)*{y}),min(W,H)/4),235,16)':cb=128:cr=128"
"""A white disc, round where `y` is the height of a pixel over its width."""


def frames_of(path: Path, spec: ExtractionSpec = SPEC) -> tuple[list[np.ndarray], Extraction]:
    with extract_frames(path, spec) as stream:
        jpegs = list(stream)
    return [np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(float) for jpeg in jpegs], stream.result


def extent(frame: np.ndarray) -> tuple[int, int]:
    """Height and width of what is white."""
    white = frame.mean(-1) > 128
    return int(white.any(1).sum()), int(white.any(0).sum())


def make(run_ffmpeg: Run, path: Path, filters: str, *options: object, size: str = "64x48", rate: int = 10) -> Path:
    source = f"color=gray:s={size}:d=0.4:r={rate},format=yuv420p,{filters}"
    run_ffmpeg("-f", "lavfi", "-i", source, *options, path)
    return path


@pytest.mark.parametrize(("aspect", "size"), [("4/3", "64x64"), ("3/4", "96x64"), ("64/45", "64x64"), ("1/2", "95x64")])
def test_a_circle_is_round(aspect: str, size: str, tmp_path: Path, run_ffmpeg: Run) -> None:
    across, down = (int(part) for part in aspect.split("/"))
    filters = f"{CIRCLE.format(y=down / across)},setsar={aspect}"
    for name in ("a.mp4", "b.mkv", "c.mov"):
        path = make(run_ffmpeg, tmp_path / name, filters, "-c:v", "mpeg4", "-q:v", 1, size=size)
        frames, result = frames_of(path)
        height, width = extent(frames[0])
        assert abs(height - width) <= 2 and result.status == "ok", (name, height, width)
        assert result.video is not None and result.video.sample_aspect == aspect.replace("/", ":")
        turned = tmp_path / f"turned-{name}"
        run_ffmpeg("-display_rotation", 90, "-i", path, "-c", "copy", turned)
        if name != "b.mkv":  # which has no place for it in every version of ffmpeg
            upright, result = frames_of(turned, ExtractionSpec(height=64))
            height, width = extent(upright[0])
            assert abs(height - width) <= 2 and result.video is not None and abs(result.video.rotation or 0) == 90


def test_a_senseless_pixel_shape_is_not_believed(tmp_path: Path, run_ffmpeg: Run) -> None:
    path = make(run_ffmpeg, tmp_path / "a.mkv", "null", "-c:v", "ffv1", "-aspect", "3000:1")
    _, result = frames_of(path)
    assert (result.status, result.height, result.width) == ("ok", 48, 64)


def test_a_preview_in_front_is_not_the_video(tmp_path: Path, run_ffmpeg: Run) -> None:
    small, large = (f"color={colour}:s={size}:d=1:r=10" for colour, size in (("red", "32x24"), ("blue", "64x48")))
    for name in ("a.mp4", "b.mkv", "c.ts"):
        inputs = [word for source in (small, large) for word in ("-f", "lavfi", "-i", source)]
        run_ffmpeg(*inputs, "-map", 0, "-map", 1, "-c:v", "mpeg4", "-r:v:0", 2, tmp_path / name)
        frames, result = frames_of(tmp_path / name)
        assert (len(frames), result.status) == (10, "ok"), name
        assert all(frame[..., 2].mean() > 150 > 90 > frame[..., 0].mean() for frame in frames), name
        sampled = sample_frames(tmp_path / name, SPEC, lambda count: [count - 1])
        assert sampled.result.num_frames == 10 and list(sampled.jpegs) == [9]


def test_frames_of_another_shape_are_cut_to_that_of_the_first(tmp_path: Path, run_ffmpeg: Run) -> None:
    parts = [make(run_ffmpeg, tmp_path / "first.ts", CIRCLE.format(y=1), "-c:v", "mpeg2video")]
    for size in ("128x48", "65x64", "128x96"):
        path = make(run_ffmpeg, tmp_path / f"{size}.ts", CIRCLE.format(y=1), "-c:v", "mpeg2video", "-q:v", 1, size=size)
        both = tmp_path / "both.ts"
        both.write_bytes(parts[0].read_bytes() + path.read_bytes())
        alone, _ = frames_of(parts[0])
        frames, result = frames_of(both)
        assert len(frames) >= 7 and (result.height, result.width) == (48, 64), size
        assert {frame.shape for frame in frames} == {(48, 64, 3)}
        for number in (0, len(frames) - 1):
            height, width = extent(frames[number])
            assert abs(height - width) <= 2 and height > 10, (size, number)
        assert all(map(np.array_equal, frames[:3], alone))  # the same bytes, whichever command wrote them


@pytest.mark.parametrize("ending", ["ts", "vob", "mpg"])
def test_pixels_that_change_their_shape_on_the_way_are_said(ending: str, tmp_path: Path, run_ffmpeg: Run) -> None:
    """As a broadcast that switches from 4:3 to 16:9: ffmpeg shows all frames in the first shape."""
    first, second = (
        make(run_ffmpeg, tmp_path / f"{number}.{ending}", f"setdar={shape}", "-c:v", "mpeg2video", "-g", 2)
        for number, shape in enumerate(("4/3", "16/9"))
    )
    both = tmp_path / f"both.{ending}"
    for after, words in ((first, ""), (second, "its pixels change their shape on the way, from 4:3 to 16:9")):
        both.write_bytes(first.read_bytes() + after.read_bytes())
        for result in (frames_of(both)[1], sample_frames(both, SPEC, lambda count: [0, count - 1]).result):
            assert words in result.error and ("its pixels" in result.error) == bool(words)
    assert frames_of(both, replace(SPEC, profile="paper"))[1].status == "damaged"


def colours(path: Path, spec: ExtractionSpec = SPEC) -> np.ndarray:
    """Mean colour of the left and of the right half, of the first frame."""
    frames, result = frames_of(path, spec)
    assert result.status == "ok", result.error
    return np.stack([half.mean((0, 1)) for half in (frames[0][:, :28], frames[0][:, -28:])])


@pytest.mark.skipif(not has_filters("zscale", "tonemap"), reason="this ffmpeg has no zscale")
@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67", "bt2020-10"])
def test_hdr_looks_like_the_ordinary_picture(transfer: str, tmp_path: Path, run_ffmpeg: Run) -> None:
    """The same two colours, once as BT.709 and once with the colours and the curve of HDR."""
    halves = "drawbox=c=0xC04030:w=32:h=48:t=fill,drawbox=c=0x3060A0:x=32:w=32:h=48:t=fill"
    tags = "setparams=range=tv:color_primaries=bt709:color_trc=bt709:colorspace=bt709"
    wide = f"zscale=p=bt2020:t={transfer}:m=bt2020nc:r=tv:npl=100,format=yuv420p10le"
    convert = f"{halves},{tags},zscale=t=linear:npl=100,format=gbrpf32le,{wide}"
    path = make(run_ffmpeg, tmp_path / "hdr.mkv", convert, "-c:v", "ffv1")
    wanted = np.array([[0xC0, 0x40, 0x30], [0x30, 0x60, 0xA0]])
    mapped, plain = colours(path), colours(path, ExtractionSpec(height=48, tone_map=False))
    assert np.abs(mapped - wanted).mean() < 22, mapped
    assert np.abs(mapped - wanted).mean() < np.abs(plain - wanted).mean()
    _, result = frames_of(path)
    assert result.video is not None and (result.video.primaries, result.video.transfer) == ("bt2020", transfer)
    sampled = sample_frames(path, SPEC, lambda count: [0])
    with extract_frames(path, SPEC) as stream:
        assert sampled.jpegs[0] == next(iter(stream))


@pytest.mark.skipif(not has_filters("zscale", "tonemap"), reason="this ffmpeg has no zscale")
@pytest.mark.parametrize("first", ["bt709", "bt2020nc"])
def test_colours_that_change_on_the_way_are_said(first: str, tmp_path: Path, run_ffmpeg: Run) -> None:
    names = {"bt709": "bt709", "bt2020nc": "bt2020"}
    paths = {}
    for matrix, name in names.items():
        tags = f"setparams=range=tv:color_primaries={name}:color_trc=bt709:colorspace={matrix}"
        paths[matrix] = make(run_ffmpeg, tmp_path / f"{matrix}.ts", tags, "-c:v", "libx264", "-preset", "ultrafast")
    both = tmp_path / "both.ts"
    other = next(matrix for matrix in names if matrix != first)
    (tmp_path / "parts.txt").write_text(f"file '{paths[first]}'\nfile '{paths[other]}'\n")
    run_ffmpeg("-f", "concat", "-safe", 0, "-i", tmp_path / "parts.txt", "-c", "copy", both)
    _, result = frames_of(both)
    assert result.status == "damaged" and result.num_frames == 8
    assert f"its colours change on the way, from {first} to {other}" in result.error
    assert {frames_of(path)[1].status for path in paths.values()} == {"ok"}


def test_hdr_without_the_filters_is_refused_in_words(
    tmp_path: Path, run_ffmpeg: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_stream, "has_filters", lambda *_: False)
    tags = "setparams=range=tv:color_primaries=bt2020:color_trc=smpte2084:colorspace=bt2020nc"
    path = make(run_ffmpeg, tmp_path / "hdr.mkv", f"format=yuv420p10le,{tags}", "-c:v", "ffv1")
    _, result = frames_of(path)
    assert result.status == "decode_failed" and "zscale" in result.error and "--no-tone-map" in result.error
    assert frames_of(path, ExtractionSpec(height=48, tone_map=False))[1].status == "ok"


def test_interlaced_video_is_flagged_and_made_whole_on_request(tmp_path: Path, run_ffmpeg: Run) -> None:
    moving = "geq=lum='if(lt(mod(X-8*N,32),16),235,16)':cb=128:cr=128,interlace=lowpass=0"
    path = make(run_ffmpeg, tmp_path / "a.mkv", moving, "-c:v", "libx264", "-flags", "+ilme+ildct", "-qp", 1, rate=20)
    frames, result = frames_of(path)
    assert result.video is not None and result.video.interlaced is True
    whole, again = frames_of(path, ExtractionSpec(height=48, deinterlace=True))
    assert again.num_frames == result.num_frames == 4

    def combs(found: list[np.ndarray]) -> float:
        return float(np.mean([np.abs(np.diff(frame.mean(-1), axis=0)).mean() for frame in found]))

    assert combs(whole) < combs(frames) / 3
    plain = make(run_ffmpeg, tmp_path / "b.mp4", CIRCLE.format(y=1), "-c:v", "libx264")
    untouched, result = frames_of(plain, ExtractionSpec(height=48, deinterlace=True))
    assert result.video is not None and result.video.interlaced is False
    assert all(map(np.array_equal, untouched, frames_of(plain)[0]))
