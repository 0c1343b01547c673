"""Lists of clips: wrong ones are refused with file and line, sources stay below the root, a digest names the list."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.preprocess.request import Request
from preprocessing.clips import ClipList, clips_digest, select_clips
from preprocessing.datasets import find_dataset
from preprocessing.schema import Clip, ExtractionSpec, SourceBox, UserError
from preprocessing.sources import find_source, measure_sources, readable_name, resolve_source


def clip(clip_id: str = "a", split: str = "train", label: int = 0, **more: object) -> Clip:
    return Clip("folder", split, clip_id, more.pop("source", f"{clip_id}.mp4"), (label,), **more)


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (clip("a"), "list:2: clip 'a' appears twice .first at list:1."),
        (clip("a", split="val"), "list:2: clip 'a' is in two splits, train and val .first at list:1."),
        (clip("b", label=3), r"list:2: label 3 is not in 0\.\.2"),
        (clip("b", label=-1), "list:2: label -1"),
        (clip("b", split="dev"), "list:2: split 'dev' is none of train, val, test"),
        (clip(""), "list:2: '' cannot name a clip"),
        (clip("a\nb"), "cannot name a clip"),
        (clip("a\ud800"), "list:2: .* cannot name a clip"),
        (clip("b", source=""), "list:2: '' cannot name a clip"),
        (clip("b", start_s=4.0, end_s=4.0), "list:2: the time range 4 to 4 s is empty"),
        (clip("b", start_s=-1.0), "list:2: the time range -1 to inf s is"),
        (clip("b", end_s=0.0), "list:2: the time range 0 to 0 s is"),
        (clip("b", start_s=float("nan")), "list:2: the time range nan to inf s is"),
        (clip("b", start_s=1.0, end_s=float("inf")), "list:2: the time range 1 to inf s is"),
        (clip("b", source="./a.mp4"), r"list:2: './a.mp4' is the same file as 'a.mp4' at list:1"),
        (
            clip("b", "val", source="x/../a.mp4"),
            r"list:2: .* in two splits, train and val .first as 'a.mp4' at list:1.",
        ),
        (clip("b", "val", source="a.mp4", start_s=3.0), "list:2: 'a.mp4' is in two splits"),
    ],
)
def test_wrong_clips(second: Clip, message: str) -> None:
    clips = ClipList(num_classes=3)
    clips.add(clip("a"), "list:1")
    with pytest.raises(UserError, match=message):
        clips.add(second, "list:2")


@given(st.text(min_size=1).filter(lambda text: all(ord(letter) >= 32 for letter in text)))
def test_any_printable_id_is_kept_as_it_is(clip_id: str) -> None:
    clips = ClipList(1)
    clips.add(clip(clip_id), "x:1")
    assert clips.clips[0].clip_id == clip_id


@pytest.mark.parametrize("source", ["../outside.mp4", "/etc/passwd", "a/../../b", "link/secret.mp4", "link.mp4", ""])
def test_sources_stay_below_the_root(tmp_path: Path, source: str) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "secret.mp4").write_bytes(b"secret")
    (root / "link").symlink_to(outside)
    (root / "link.mp4").symlink_to(outside / "secret.mp4")
    with pytest.raises(ValueError, match="leaves the data root"):
        resolve_source(root, source)
    assert find_source(root, clip("x", source=source)).num_bytes == -1


def test_parts_of_one_file_may_be_in_two_splits() -> None:
    clips = ClipList(1, repeats=True)
    clips.add(clip("a@0-3", source="a.mp4", end_s=3.0), "list:1")
    clips.add(clip("a@3-", "val", source="./a.mp4", start_s=3.0), "list:2")
    clips.add(clip("again", source="a.mp4", end_s=3.0), "list:3")  # on purpose: by an id of its own
    assert len(clips.clips) == 3
    once = ClipList(1)
    once.add(clip("walk/1", source="run/1.mp4"), "list:1")
    with pytest.raises(UserError, match=r"list:2: 'run/1\.mp4' is the same file"):  # found twice by its name alone
        once.add(clip("run/1", source="run/1.mp4"), "list:2")


def test_links_do_not_hide_that_two_splits_share_a_file(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"video")
    (tmp_path / "b.mp4").symlink_to("a.mp4")
    (tmp_path / "c.mp4").hardlink_to(tmp_path / "a.mp4")
    assert measure_sources(tmp_path, [clip("a"), clip("b"), clip("lost", "val")]) == [5, 5, -1]
    for other in ("b", "c"):
        with pytest.raises(UserError, match=f"'a.mp4' of split train and '{other}.mp4' of split val are the same file"):
            measure_sources(tmp_path, [clip("a"), clip(other, "val")])


def test_a_name_that_is_no_text_is_found_by_its_readable_name(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.mp4")
    (tmp_path / name).write_bytes(b"video")
    shown = readable_name(name)
    assert shown == r"caf\xe9.mp4" and readable_name("café.mp4") == "café.mp4"
    assert resolve_source(tmp_path, shown) == tmp_path / name
    (tmp_path / shown).touch()  # a file that is really called so comes first
    assert resolve_source(tmp_path, shown) == tmp_path / shown


def test_digest_knows_every_field_and_the_order() -> None:
    clips = [clip("a"), clip("b")]
    others = [[clip("b"), clip("a")], [clip("a"), clip("b", label=1)], [clip("a"), clip("b", end_s=2.0)], clips[:1]]
    assert len({clips_digest(other) for other in (clips, *others)}) == 5


@given(
    st.text(),
    st.tuples(st.none() | st.floats(allow_nan=False), st.none() | st.integers(0, 9)),
    st.none() | st.lists(st.tuples(*[st.floats(0, 1)] * 4), max_size=2).map(tuple),
    st.none() | st.lists(st.tuples(st.integers(0, 9), *[st.floats(0, 9)] * 4), max_size=2),
)
def test_a_line_of_the_digest_is_what_it_was_in_earlier_versions(
    name: str, numbers: tuple[float | None, int | None], boxes: tuple | None, pixels: list | None
) -> None:
    source_boxes = None if pixels is None else tuple(SourceBox(*each, "boxes.csv:3") for each in pixels)
    one = clip(name, start_s=numbers[0], listed_frames=numbers[1], boxes=boxes, source_boxes=source_boxes)
    facts = asdict(one)
    listed = facts.pop("source_boxes")
    if listed is not None:
        facts["source_boxes"] = [{key: box[key] for key in box if key != "where"} for box in listed]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode() + b"\n").hexdigest()[:16]
    assert clips_digest([one], source_boxes=True) == digest
    assert clips_digest([one]) == clips_digest([replace(one, source_boxes=None)], source_boxes=True)


def test_sources_are_measured_as_each_is_found(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    for folder in (root / "a" / "b", outside, root / "frames"):
        folder.mkdir(parents=True)
    (outside / "x.mp4").write_bytes(b"outside")
    for place in (root / "a", root):
        (place / "x.mp4").write_bytes(b"inside")
    (root / "a" / "b" / os.fsdecode(b"caf\xe9.mp4")).write_bytes(b"no text")
    (root / "link").symlink_to(outside)
    (root / "near").symlink_to(root / "a")
    (root / "file.mp4").symlink_to(root / "a" / "x.mp4")
    names = [
        "a/x.mp4",
        "near/x.mp4",
        "link/x.mp4",
        "file.mp4",
        "a/b/../x.mp4",
        "a/../../outside/x.mp4",
        "a",
        "none.mp4",
    ]
    names += [r"a/b/caf\xe9.mp4", "/etc/passwd", "/file.mp4", "/x.mp4", "a/x.mp4/", ".", "..", "a/b/none/x.mp4", "a\0b"]
    clips = [clip(str(number), source=name) for number, name in enumerate(names)]
    clips.append(clip("frames", source="frames", source_kind="frames", listed_frames=3))
    assert measure_sources(root, clips) == [find_source(root, each).num_bytes for each in clips]
    assert measure_sources(root, clips)[:4] == [6, 6, -1, 6] and measure_sources(root, clips)[8] == 7
    assert measure_sources(root, []) == []


def test_select_clips(folder_root: Path) -> None:
    _, clips = find_dataset("folder").read_clips(folder_root)
    assert len(select_clips(clips, ["val"], None)) == 4
    assert [clip.split for clip in select_clips(clips, None, 2)] == ["train", "train", "val", "val"]
    with pytest.raises(UserError, match="the data set has the splits train, val, chosen were"):
        select_clips(clips, ["test"], None)
    with pytest.raises(UserError, match="unknown split 'dev'"):
        select_clips(clips, ["dev"], None)


def test_a_file_whose_name_holds_a_line_break_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "two\nlines.mp4").write_bytes(b"")
    with pytest.raises(UserError, match="cannot name a clip") as raised:
        find_dataset("folder").read_clips(tmp_path)
    assert "\n" not in str(raised.value) and r"two\nlines.mp4" in str(raised.value)


def test_a_file_as_data_root_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    request = Request("folder", tmp_path / "a.mp4", str(tmp_path / "o"), ExtractionSpec())
    with pytest.raises(UserError, match=r"a\.mp4 is no folder; give the folder of the videos"), request.opened():
        pass
