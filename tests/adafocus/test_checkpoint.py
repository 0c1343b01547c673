import dataclasses
import json
import os
from pathlib import Path

import pytest
import torch

from adafocus import checkpoint
from adafocus.checkpoint import Meta, load_model, load_state, load_weights, read_meta, save, save_state
from adafocus.config.overrides import override
from adafocus.config.schema import Config
from adafocus.methods import build_model
from adafocus.models.adafocus import AdaFocus
from preprocessing.schema import DatasetInfo, UserError

INFO = DatasetInfo("toy", ("a", "b", "c"))
CONFIG = override(
    Config(),
    {
        "data.crop": 32,
        "data.num_frames": 2,
        "data.num_focus_frames": 2,
        "model.glancer": "tiny",
        "model.focuser": "tiny",
        "model.glancer_weights": "none",
        "model.focuser_weights": "none",
        "model.glance_size": 32,
        "model.patch_size": 16,
        "model.policy_hidden": 8,
        "model.classifier_hidden": 8,
    },
)


def make(seed: int, **changes: object) -> AdaFocus:
    torch.manual_seed(seed)
    return build_model(override(CONFIG, changes), 3)


def meta_of(stage: str = "finetune") -> Meta:
    history = [{"metrics": {"finetune/val_map": 1.0}}, {"metrics": {"finetune/val_map": 2.5}}]
    return Meta.describe(CONFIG, stage=stage, key="0123", digest="abcd", info=INFO, history=history, seconds=1.5)


def equal(first: AdaFocus, second: AdaFocus, part: str = "") -> bool:
    a, b = first.state_dict(), second.state_dict()
    return all(torch.equal(a[name], b[name]) for name in a if name.startswith(part))


def test_a_model_comes_back_as_it_was(tmp_path: Path) -> None:
    model = make(0).to(memory_format=torch.channels_last)
    written = save(tmp_path / "run", model, meta_of())
    loaded, meta = load_model(tmp_path / "run")
    assert equal(model, loaded) and not loaded.training
    assert meta == written and loaded.config == CONFIG
    assert (meta.class_names, meta.metrics, meta.key) == (("a", "b", "c"), {"finetune/val_map": 2.5}, "0123")
    assert meta.versions["torch"] == torch.__version__


def test_a_newer_checkpoint_replaces_the_older(tmp_path: Path) -> None:
    first, second = make(0), make(1)
    save(tmp_path, first, meta_of())
    save(tmp_path, second, meta_of())
    assert equal(load_model(tmp_path)[0], second)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".json", ".safetensors"]


@pytest.mark.parametrize("failing", [1, 2])
def test_a_crash_leaves_the_older_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int) -> None:
    first = make(0)
    save(tmp_path, first, meta_of())
    calls, replace = [], os.replace

    def crash(source: Path, target: Path) -> None:
        calls.append(target)
        if len(calls) == failing:
            raise OSError("power cut")
        replace(source, target)

    monkeypatch.setattr(os, "replace", crash)
    with pytest.raises(OSError, match="power cut"):
        save(tmp_path, make(1), meta_of())
    assert equal(load_model(tmp_path)[0], first)


def test_unfinished_and_damaged_checkpoints_are_the_user_s_errors(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no meta\.json"):
        load_model(tmp_path)
    file = tmp_path / "model.pth.tar"  # as it is downloaded
    file.write_bytes(b"x")
    with pytest.raises(UserError, match=r"model\.pth\.tar is a file, and a checkpoint is a folder"):
        load_model(file)
    meta = save(tmp_path, make(0), meta_of())
    weights = tmp_path / meta.weights
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match="is damaged"):
        load_model(tmp_path)
    weights.unlink()
    with pytest.raises(UserError, match="is missing"):
        load_model(tmp_path)
    (tmp_path / "meta.json").write_text("{}")
    with pytest.raises(UserError, match="no checkpoint's record"):
        read_meta(tmp_path)


def test_a_record_cannot_point_out_of_its_folder(tmp_path: Path) -> None:
    save(tmp_path, make(0), meta_of())
    record = json.loads((tmp_path / "meta.json").read_text())
    (tmp_path / "meta.json").write_text(json.dumps(record | {"weights": "../elsewhere.safetensors"}))
    with pytest.raises(UserError, match="do not lie in"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("config", value)
            for value in (None, 3, ["x"], {"model.glance_size": 10**12}, {"model.policy_hidden": 10**12})
        ),
        *(("info", value) for value in (None, {}, {"name": "a"}, {"name": "a", "class_names": ["b"], "pad": "middle"})),
        *(("extraction", value) for value in ("x", ["x"], {"height": "high"}, {"depth": 3})),
        *(("weights", value) for value in ("", None, ".", "..", "meta.json")),
        *(("history", value) for value in ([{}], ["x"], {"a": 1})),
        *(("stage", value) for value in (None, 3, "x", ["pretrain"])),
    ],
)
def test_a_record_of_other_types_is_refused(name: str, value: object, tmp_path: Path) -> None:
    save(tmp_path, make(0), meta_of())
    record = json.loads((tmp_path / "meta.json").read_text())
    (tmp_path / "meta.json").write_text(json.dumps(record | {name: value}))
    with pytest.raises(UserError) as raised:
        _, meta = load_model(tmp_path)
        meta.lacking("policy")
    assert str(tmp_path) in str(raised.value) or name == "stage"


def test_a_record_that_is_no_json_or_a_folder_is_refused(tmp_path: Path) -> None:
    meta = save(tmp_path, make(0), meta_of())
    record = (tmp_path / "meta.json").read_bytes()
    for text in (b"", b"\xff\xfe", b"[" * 100_000, b"null", record.decode().encode("utf-16")):
        (tmp_path / "meta.json").write_bytes(text)
        with pytest.raises(UserError, match="no checkpoint's record"):
            load_model(tmp_path)
    (tmp_path / "meta.json").write_bytes(record)
    (tmp_path / meta.weights).unlink()
    (tmp_path / meta.weights).mkdir()
    with pytest.raises(UserError, match="cannot be read: Is a directory"):
        load_model(tmp_path)


def test_facts_that_an_earlier_version_did_not_know_are_filled_in(tmp_path: Path) -> None:
    save(tmp_path, make(0), meta_of())
    record = json.loads((tmp_path / "meta.json").read_text())
    record["info"] = {name: record["info"][name] for name in ("name", "class_names")}
    (tmp_path / "meta.json").write_text(json.dumps(record))
    assert read_meta(tmp_path).info["pad"] == "last"


def test_class_names_have_to_fit(tmp_path: Path) -> None:
    info = dataclasses.replace(INFO, class_names=("a",))
    with pytest.raises(ValueError, match="1 class names for a model of 3"):
        save(tmp_path, make(0), Meta.describe(CONFIG, stage="ppo", info=info))


@pytest.mark.parametrize(
    ("stage", "kept"), [("pretrain", {"policy", "classifier"}), ("warmup", {"policy"}), ("ppo", set())]
)
def test_the_next_stage_takes_what_was_trained(tmp_path: Path, stage: str, kept: set[str]) -> None:
    before, after, untouched = make(0), make(1), make(1)
    save(tmp_path, before, meta_of(stage))
    load_weights(after, tmp_path)
    for part in ("glancer", "focuser", "policy", "classifier"):
        assert equal(after, untouched if part in kept else before, part)


def test_trials_with_other_grids_share_a_warm_up(tmp_path: Path) -> None:
    before, after = make(0), make(1, **{"model.grid_size": 4})
    save(tmp_path, before, meta_of("warmup"))
    load_weights(after, tmp_path)
    assert equal(after, before, "classifier") and equal(after, make(1, **{"model.grid_size": 4}), "policy")


def test_other_weights_are_refused_with_their_keys(tmp_path: Path) -> None:
    save(tmp_path, make(0), meta_of())
    with pytest.raises(UserError, match=r"shapes: .*classifier.gru.weight_hh_l0 \(24, 8\) instead of \(48, 16\)"):
        load_weights(make(1, **{"model.classifier_hidden": 16}), tmp_path)


def test_a_stage_s_state_comes_back(tmp_path: Path) -> None:
    model = make(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "progress": {"epoch": 2, "rows": [1.5]}}
    assert load_state(tmp_path / "a.partial") is None
    save_state(tmp_path / "a.partial", state)
    found = load_state(tmp_path / "a.partial")
    assert found is not None and found["progress"] == {"epoch": 2, "rows": [1.5]}
    buffers = [entry["momentum_buffer"] for entry in found["optimizer"]["state"].values()]
    assert all(torch.equal(x, torch.ones_like(x)) for x in buffers)
    (tmp_path / "a.partial" / checkpoint.STATE).write_bytes(b"half")
    with pytest.raises(UserError, match="delete it to start the stage anew"):
        load_state(tmp_path / "a.partial")
