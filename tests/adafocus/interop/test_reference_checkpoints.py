"""Round trips in small: ResNet-50 and MobileNetV2 are the smallest that the layouts have, so models are made once."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adafocus.config.overrides import override
from adafocus.interop.reference_checkpoints import Source, import_checkpoint, import_files, read_checkpoint
from adafocus.interop.reference_export import export_checkpoint
from adafocus.interop.reference_names import POLICY_COPIES
from adafocus.methods import build_model
from adafocus.models.adafocus import AdaFocus
from pipelines.recipes import RECIPES
from preprocessing.schema import UserError

GOLDEN = Path(__file__).parents[2] / "golden"
NONE = {"model.glancer_weights": "none", "model.focuser_weights": "none"}
CONFIGS = {
    "actnet": override(RECIPES["activitynet-128"](), {**NONE, "data.num_frames": 2, "data.num_focus_frames": 2}),
    "sth": override(RECIPES["ssv1-144"](), NONE),
}
ALWAYS = {"epoch", "model_state_dict", "glancer", "focuser", "acc", "best_acc"}
KEYS = {
    ("actnet", "pretrain"): ALWAYS | {"scaler", "policy", "optimizer"},
    ("actnet", "warmup"): ALWAYS | {"fc", "scaler", "policy", "optimizer"},
    ("actnet", "finetune"): ALWAYS | {"fc", "scaler", "policy", "optimizer"},
    ("sth", "warmup"): ALWAYS | {"fc"},
    ("sth", "finetune"): ALWAYS | {"fc", "policy"},
}
"""Of a whole file: `policy` is None before there is one in the first layout, and absent in the second."""


@cache
def model_of(layout: str) -> AdaFocus:
    torch.manual_seed(0)
    return build_model(CONFIGS[layout], 10)


def exported(layout: str, folder: Path, stage: str = "finetune") -> tuple[Path, dict[str, Any]]:
    path = folder / f"{layout}.pth.tar"
    export_checkpoint(model_of(layout), path, stage=stage, info={"epoch": 7, "best_acc": 75.0})
    return path, read_checkpoint(path)


def rewritten(path: Path, checkpoint: dict[str, Any]) -> Path:
    torch.save(checkpoint, path)
    return path


def same(first: AdaFocus, second: AdaFocus, prefix: str = "") -> bool:
    a, b = first.state_dict(), second.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a if name.startswith(prefix))


@pytest.mark.parametrize("layout", CONFIGS)
def test_round_trip_key_for_key(layout: str, tmp_path: Path) -> None:
    path, checkpoint = exported(layout, tmp_path)
    shapes = json.loads((GOLDEN / f"layout_{layout}.json").read_text())
    for part, wanted in shapes.items():
        assert {name: list(value.shape) for name, value in checkpoint[part].items()} == wanted
    found = import_checkpoint(path, CONFIGS[layout])
    assert found.parts == ("glancer", "focuser", "policy", "classifier")
    assert (found.stage, found.info["epoch"], found.info["best_acc"]) == ("finetune", 7, 75)
    wanted_state = model_of(layout).state_dict()
    for name, value in found.model.state_dict().items():
        if not (layout == "sth" and name.startswith("focuser.last")):
            assert torch.equal(value, wanted_state[name]), name
    export_checkpoint(found.model, tmp_path / "again.pth.tar")
    again = read_checkpoint(tmp_path / "again.pth.tar")
    for part in shapes:
        assert list(again[part]) == list(checkpoint[part])
        assert all(torch.equal(value, checkpoint[part][name]) for name, value in again[part].items())


def test_whole_model_table_has_their_prefixes(tmp_path: Path) -> None:
    _, checkpoint = exported("actnet", tmp_path)
    whole = checkpoint["model_state_dict"]
    assert {name.split(".")[0] for name in whole} == {"glancer", "focuser", "classifier"}
    assert "focuser.policy.policy_old.actor.0.weight" in whole and "classifier.fc.bias" in whole


@pytest.mark.parametrize("layout", CONFIGS)
def test_a_file_of_stage_1_has_no_policy(layout: str, tmp_path: Path) -> None:
    path, checkpoint = exported(layout, tmp_path, stage="warmup")
    assert checkpoint.get("policy") is None
    assert not any(name.startswith("policy") for name in checkpoint["focuser"])
    found = import_checkpoint(path, CONFIGS[layout])
    assert (found.stage, found.parts) == ("warmup", ("glancer", "focuser", "classifier"))


def test_the_policy_is_found_in_the_focuser_s_table(tmp_path: Path) -> None:
    path, checkpoint = exported("actnet", tmp_path)
    del checkpoint["policy"]
    found = import_checkpoint(rewritten(path, checkpoint), CONFIGS["actnet"])
    assert same(found.model, model_of("actnet"))


@pytest.mark.parametrize(("layout", "stage"), KEYS)
def test_a_file_has_the_keys_of_its_stage(layout: str, stage: str, tmp_path: Path) -> None:
    path, checkpoint = exported(layout, tmp_path, stage)
    assert set(checkpoint) == KEYS[layout, stage]
    assert (checkpoint["epoch"], checkpoint["best_acc"]) == (7, 75)
    assert {name.split(".")[0] for name in checkpoint["model_state_dict"]} == {
        "glancer",
        "focuser",
        *(["classifier"] if "fc" in checkpoint else []),
    }
    found = import_checkpoint(path, CONFIGS[layout])
    assert found.stage == stage and found.info == {"epoch": 7, "acc": 0, "best_acc": 75}
    if stage == "pretrain":
        assert found.parts == ("glancer", "focuser")
        assert same(found.model, model_of(layout), "glancer") and same(found.model, model_of(layout), "focuser")


def test_pretrained_networks_of_the_trimmed_family_are_two_files(tmp_path: Path) -> None:
    model = model_of("sth")
    infos = {"glancer": {"epoch": 50, "best_prec1": 36.5}, "focuser": {"epoch": 49, "best_prec1": 46.0}}
    files = export_checkpoint(model, tmp_path / "x.pth.tar", stage="pretrain", info_of_parts=infos)
    assert [file.name for file in files] == ["x_glancer.pth.tar", "x_focuser.pth.tar"]
    for file, info, arch in zip(files, infos.values(), ("mobilenetv2", "resnet50"), strict=True):
        checkpoint = read_checkpoint(file)
        assert {name: checkpoint[name] for name in ("epoch", "best_prec1", "arch")} == {**info, "arch": arch}
        assert set(checkpoint) == {"epoch", "best_prec1", "arch", "state_dict"}
        assert checkpoint["state_dict"]["module.new_fc.weight"].shape[0] == 10
    found, records = import_files([Source(file) for file in files], CONFIGS["sth"])
    assert (found.parts, found.stage) == (("glancer", "focuser"), "pretrain")
    assert same(found.model, model, "glancer") and same(found.model, model, "focuser")
    assert [(record["name"], record["parts"], record["best_prec1"]) for record in records] == [
        ("x_glancer.pth.tar", ["glancer"], 36.5),
        ("x_focuser.pth.tar", ["focuser"], 46.0),
    ]


def test_of_files_that_hold_the_same_part_one_has_to_be_named(tmp_path: Path) -> None:
    """As the authors write them, a file of stage 0 also holds what was not trained in it."""
    path, _ = exported("actnet", tmp_path, "warmup")
    with pytest.raises(UserError, match=r"both hold the classifier.*as in classifier="):
        import_files([Source(path), Source(path)], CONFIGS["actnet"])
    sources = [Source.parse(f"glancer={path}"), Source.parse(f"focuser={path}")]
    found, _ = import_files(sources, CONFIGS["actnet"])
    assert (found.parts, found.stage) == (("glancer", "focuser"), "pretrain")
    assert same(found.model, model_of("actnet"), "focuser") and not same(found.model, model_of("actnet"), "classifier")
    with pytest.raises(UserError, match="holds no policy, only glancer, focuser, classifier"):
        import_checkpoint(path, CONFIGS["actnet"], only="policy")
    with pytest.raises(UserError, match="'glance' is none of glancer, focuser"):
        Source.parse(f"glance={path}")


def test_files_of_stage_0_fill_one_model_together(tmp_path: Path) -> None:
    _, checkpoint = exported("actnet", tmp_path)
    focuser = {name: x for name, x in checkpoint["focuser"].items() if not name.startswith(POLICY_COPIES)}
    first = rewritten(tmp_path / "global.pth.tar", {"glancer": checkpoint["glancer"], "focuser": None, "fc": None})
    second = rewritten(tmp_path / "local.pth.tar", {"focuser": focuser, "acc": np.float64(3.0)})
    found = import_checkpoint(first, CONFIGS["actnet"])
    assert (found.stage, found.parts) == ("pretrain", ("glancer",))
    both = import_checkpoint(second, CONFIGS["actnet"], into=found.model)
    assert both.model is found.model and both.info == {"acc": 3.0}
    assert same(both.model, model_of("actnet"), "glancer") and same(both.model, model_of("actnet"), "focuser")


@pytest.mark.parametrize("part", ["glancer", "focuser"])
def test_networks_of_the_temporal_shift_module(part: str, tmp_path: Path) -> None:
    """As that project writes them: `module.base_model` with plain ResNet or MobileNetV2 names, `module.new_fc`."""
    model = model_of("sth")
    _, checkpoint = exported("sth", tmp_path)
    state = {}
    for name, value in checkpoint[part].items():
        if part == "glancer":
            name = name.replace("net.classifier.", "new_fc.").replace("net.features", "base_model.features")
        else:
            position, rest = name.removeprefix("net.base_model.").split(".", 1)
            named = {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"}[position]
            name = f"base_model.{named}.{rest}"
        state[f"module.{name}"] = value
    if part == "focuser":
        state |= {f"module.new_fc.{kind}": value for kind, value in model.focuser.last[1].state_dict().items()}
    path = rewritten(tmp_path / "tsm.pth.tar", {"epoch": 50, "arch": "x", "state_dict": state, "best_prec1": 44.0})
    found = import_checkpoint(path, CONFIGS["sth"])
    assert (found.stage, found.parts) == ("pretrain", (part,)) and found.info["best_prec1"] == 44
    assert same(found.model, model, part)
    (written,) = export_checkpoint(found.model, tmp_path / "b.pth.tar", stage=found.stage, parts=found.parts)
    again = read_checkpoint(written)["state_dict"]
    assert again.keys() == state.keys() and all(torch.equal(again[name], state[name]) for name in state)
    assert len(state) == {"glancer": 314, "focuser": 320}[part]


@pytest.mark.parametrize("layout", CONFIGS)
def test_missing_surplus_and_misshapen_keys_are_listed(layout: str, tmp_path: Path) -> None:
    path, checkpoint = exported(layout, tmp_path)
    del checkpoint["glancer"]["net.features.0.1.bias"]
    checkpoint["fc"]["fc.more"] = torch.zeros(1)
    checkpoint["policy"]["critic.0.bias"] = torch.zeros(2)
    with pytest.raises(UserError) as error:
        import_checkpoint(rewritten(path, checkpoint), CONFIGS[layout])
    for words in (
        "missing: glancer.net.features.0.1.bias",
        "surplus: fc.fc.more",
        "policy.critic.0.bias (2,) instead of (1,)",
    ):
        assert words in str(error.value)


def test_files_of_the_other_family_are_refused(tmp_path: Path) -> None:
    for layout, other in (("actnet", "sth"), ("sth", "actnet")):
        path, _ = exported(layout, tmp_path)
        with pytest.raises(UserError, match="missing: "):
            import_checkpoint(path, CONFIGS[other])


def test_other_files_are_refused(tmp_path: Path) -> None:
    def refuse(content: object, words: str) -> None:
        torch.save(content, tmp_path / "x.pth.tar")
        with pytest.raises(UserError, match=words):
            import_checkpoint(tmp_path / "x.pth.tar", CONFIGS["actnet"])

    refuse({"weights": torch.zeros(1)}, "it has weights")
    refuse([1, 2], "holds a list")
    refuse({"glancer": torch.nn.Linear(1, 1)}, "cannot be read")  # a pickled object is not run
    refuse({"policy": {}}, "number of classes")
    with pytest.raises(UserError, match="does not exist"):
        import_checkpoint(tmp_path / "none.pth.tar", CONFIGS["actnet"])
    with pytest.raises(UserError, match="the recipe has tiny, resnet50, gru"):
        import_checkpoint(tmp_path / "x.pth.tar", override(CONFIGS["actnet"], {"model.glancer": "tiny"}))
