"""Videos are found below a data root by the names that lists give them."""

from __future__ import annotations

from pathlib import Path

from preprocessing.datasets.videos import Videos


def test_videos_are_found_by_path_by_name_and_by_hint(tmp_path: Path) -> None:
    for name in ("train/a.b.mp4", "val/a.b.mp4", "deep/er/v_x.webm", "up.MKV", "notes.txt", "jpegs/7/00001.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    videos = Videos(tmp_path)
    assert videos.find(["a.b"], hint="val") == "val/a.b.mp4"
    assert videos.find(["a.b"]) == "train/a.b.mp4"
    assert videos.find(["val/a.b"]) == "val/a.b.mp4"
    assert videos.find(["x", "v_x"]) == "deep/er/v_x.webm"
    assert videos.find(["up"]) == "up.MKV"
    assert videos.find(["notes"]) is None
    assert videos.find(["7"]) is None
    frames = Videos(tmp_path, frame_folders=True)
    assert frames.kind(frames.find(["7"])) == "frames"


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    root, far = tmp_path / "root", tmp_path / "far"
    for path in (root / "real" / "a.mp4", far / "b.mp4", far / "more" / "c.mp4"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (root / "alias").symlink_to("real")
    (root / "linked").symlink_to(far)
    (far / "more" / "loop").symlink_to(root)
    videos = Videos(root)
    assert [videos.find([name]) for name in "abc"] == ["real/a.mp4", "linked/b.mp4", "linked/more/c.mp4"]
