"""The chain of ffmpeg's filters between a decoder and the JPEG encoder."""

from __future__ import annotations

from dataclasses import dataclass

from preprocessing.ffmpeg.video_stream import SQUARE, WIDE_PRIMARIES, VideoStream
from preprocessing.schema import ExtractionSpec

TONE_MAP_FILTERS = ("zscale", "tonemap")
"""Filters that HDR needs; some builds of ffmpeg lack the first one."""
# Microseconds that only ever rise, as encoders want them: a frame whose time is missing, repeated, earlier than the
# last one's or beyond all sense follows the last one by one microsecond.
_TIME = "if(lt(abs(PTS),1e15),PTS,0)"
_NUMBERED = f"settb=1/1000000,setpts='if(isnan(PREV_OUTPTS),{_TIME},max({_TIME},PREV_OUTPTS+1))'"
ENCODER_TIME_BASE = "1:1000000"
# A pixel's shape counts where it can be meant, and `-1` keeps the bytes of frames with square pixels.
_HAS_SHAPE = f"between(sar,0.1,10)*not(between(sar,{SQUARE[0]},{SQUARE[1]}))"
_PIXEL = f"if({_HAS_SHAPE},sar,1)"
_KEEP = "if(lt(abs({0}-{1}),0.03*{0}+1),{0},min({0},{1}))"


@dataclass(frozen=True, slots=True)
class Picture:
    """What the frames of one file need, beyond what all files do, to be upright, of one shape and in true colours."""

    stream: int | None = None
    """Number of the stream that is the video; None for the first one."""
    colours: tuple[str, str, str, str] | None = None
    """Transfer, primaries, matrix and range of the source, to be converted to those of an ordinary screen."""
    box: tuple[int, int] | None = None
    """(height, width) of the first frames: of later ones of another shape the middle is cut out."""


PLAIN = Picture()


def picture_of(video: VideoStream, spec: ExtractionSpec, box: tuple[int, int] | None) -> Picture:
    """What the frames of a stream need under these settings."""
    if spec.profile == "paper" or not (spec.tone_map and video.has_wide_colours):
        return Picture(video.number, None, box)
    transfer = video.transfer if video.is_hdr else "bt709"
    matrix = video.matrix if video.matrix and video.matrix.startswith("bt") else "bt2020nc"
    primaries, values = video.primaries or WIDE_PRIMARIES, video.color_range or "tv"
    return Picture(video.number, (transfer or "bt709", primaries, matrix, values), box)


SHOW = "showinfo=checksum=0"
"""Writes the time stamp of each frame to the log."""


def frame_filters(spec: ExtractionSpec, picture: Picture, cut: str = "", select: str = "", first: str = "") -> str:
    """The whole chain. `cut` leaves the frames of a time range; `select` those that are wanted; `first` is put before
    all."""
    filters = [first] if first else []
    filters += [cut, "setpts=PTS-STARTPTS"] if cut else []
    if spec.deinterlace:
        filters.append("bwdif=mode=send_frame:deint=interlaced")
    if spec.profile == "clean":
        filters.append(f"fps={spec.fps}" if spec.fps else _NUMBERED)
    if select:
        filters.append(select)
    filters.append(_scale(spec, picture.box))
    if picture.colours:
        filters.append(_to_screen_colours(picture.colours))
    return ",".join(filters)


def count_filters(spec: ExtractionSpec, cut: str = "") -> str:
    """The chain for frames that are only counted."""
    return frame_filters(spec, PLAIN, cut).rpartition(",scale=")[0] or "null"


def _scale(spec: ExtractionSpec, box: tuple[int, int] | None) -> str:
    if spec.profile == "paper":
        return f"scale=-1:{spec.height}"
    if box is None:
        return f"scale=w='if({_HAS_SHAPE},max(1,round({spec.height}*dar)),-1)':h={spec.height}"
    height, width = box
    # Frames of the first shape, up to a rounded pixel, pass whole: they are the same bytes as without this step.
    across, down = f"ih*{width}/{height}/{_PIXEL}", f"iw*{height}/{width}*{_PIXEL}"
    cut = f"crop=w='{_KEEP.format('iw', across)}':h='{_KEEP.format('ih', down)}':exact=1"
    return f"{cut},scale={width}:{height}"


def _to_screen_colours(colours: tuple[str, str, str, str]) -> str:
    """BT.2020 and HDR to what a JPEG holds. Mobius leaves what an ordinary screen can show nearly as it is."""
    transfer, primaries, matrix, values = colours
    tags = f"setparams=range={values}:color_primaries={primaries}:color_trc={transfer}:colorspace={matrix}"
    mapped = "" if transfer == "bt709" else ",tonemap=mobius:desat=0"
    linear = f"zscale=t=linear:npl=100,format=gbrpf32le,zscale=p=bt709{mapped}"
    # zscale wants even sizes, unless chroma has a resolution of its own no more.
    return f"format=yuv444p16le,{tags},{linear},zscale=t=bt709:m=bt470bg:r=full,format=yuv444p,format=yuv420p"
