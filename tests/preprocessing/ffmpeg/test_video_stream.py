"""ffmpeg's header is read right: of several versions, and of streams that say much or little."""

from __future__ import annotations

import pytest

from preprocessing.ffmpeg.log import FFmpegLog
from preprocessing.ffmpeg.video_stream import VideoStream, main_stream, parse_stream

PHONE = (
    "  Stream #0:1[0x2](und): Video: hevc (Main 10) (hvc1 / 0x31637668), yuv420p10le(tv, bt2020nc/bt2020/arib-std-b67, "
    "progressive), 1920x1080 [SAR 4:3 DAR 64:27], 9 kb/s, 29.97 fps, 30 tbr, 600 tbn (default)"
)


def test_a_line_that_says_much() -> None:
    stream = parse_stream(PHONE)
    assert stream is not None
    for name in ("Display Matrix", "displaymatrix"):
        stream.add_side_data(f"      {name}: rotation of -90.00 degrees")
        assert stream.rotation == -90
    stream.add_side_data("      DOVI configuration record: version: 1.0, profile: 8, level: 4, rpu flag: 1")
    assert stream == VideoStream(
        number=1,
        codec="hevc",
        height=1080,
        width=1920,
        sample_aspect="4:3",
        rotation=-90,
        matrix="bt2020nc",
        primaries="bt2020",
        transfer="arib-std-b67",
        color_range="tv",
        interlaced=False,
        dolby_profile=8,
        fps=29.97,
        ticks_per_s=600,
    )
    assert stream.is_hdr and stream.has_wide_colours


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("h264 (High), yuv420p(tv, bt709, top first), 720x576 [SAR 16:15 DAR 4:3], SAR 64:45 DAR 16:9, 25 fps",
         {"interlaced": True, "transfer": "bt709", "primaries": "bt709", "sample_aspect": "64:45"}),
        ("mjpeg (Baseline), yuvj420p(pc, bt470bg/unknown/unknown), 32x24, 90k tbr, 90k tbn",
         {"color_range": "pc", "matrix": "bt470bg", "transfer": None, "fps": None, "ticks_per_s": 90_000}),
        ("h264, yuv420p(tv, top coded first (swapped)), 64x48, 25 fps", {"interlaced": True, "width": 64}),
        ("vp9 (Profile 0), yuv420p(tv, left), 64x48, 0.03 fps, 25 tbr", {"fps": 25.0, "matrix": None}),
        ("vp8, yuv420p, 64x48, 0.5 fps, 0.5 tbr", {"fps": 0.5}),
        ("h264, yuv420p, 64x48, 2515.72 fps, 12800 tbr", {"fps": None}),
        ("rawvideo (RGB[24] / 0x18424752), rgb24, 64x48, 23.98 tbr", {"fps": 23.98, "ticks_per_s": None}),
        ("png, rgba(pc, gbr/unknown/unknown), 640x480, 90k tbr (attached pic)", {"is_cover": True}),
        ("h264, none, 1 fps", {"height": 0, "width": 0}),
    ],
)  # fmt: skip
def test_lines_that_say_little(rest: str, expected: dict[str, object]) -> None:
    stream = parse_stream(f"  Stream #0:0: Video: {rest}")
    assert {name: getattr(stream, name) for name in expected} == expected


def test_the_video_is_the_largest_that_is_no_cover() -> None:
    sizes = [(32, 24, False), (640, 480, True), (64, 48, False), (64, 48, False)]
    streams = [VideoStream(number, "h264", height, width, cover) for number, (width, height, cover) in enumerate(sizes)]
    chosen = main_stream(streams)
    assert chosen is not None and chosen.number == 2
    assert main_stream(streams[1:2]) is None and main_stream([]) is None


def test_only_the_header_of_the_input_is_read_in_chunks_of_any_size() -> None:
    text = "\n".join(
        f"[info] {line}"
        for line in (
            "Input #0, mov,mp4,m4a,3gp,3g2,mj2, from 'file:Stream #0:0: Video: h264, 8x8.mp4':",
            "  Duration: 00:01:02.50, start: 1.440000, bitrate: 10 kb/s",
            "  Stream #0:0[0x1]: Audio: aac, 44100 Hz",
            PHONE,
            "    Side data:",
            "      Display Matrix: rotation of 90.00 degrees",
            "Stream mapping:",
            "Output #0, mpjpeg, to 'pipe:1':",
            "  Stream #0:0: Video: mjpeg, yuv420p(pc, progressive), 3840x2160, 10 fps",
        )
    )
    data = (text + "\n").encode()
    for size in (1, 7, len(data)):
        log = FFmpegLog()
        for at in range(0, len(data), size):
            log.feed(data[at : at + size])
        assert (log.container, log.duration_s, log.start_s) == ("mov,mp4,m4a,3gp,3g2,mj2", 62.5, 1.44)
        assert [(stream.number, stream.width, stream.rotation) for stream in log.streams] == [(1, 1920, 90)]
