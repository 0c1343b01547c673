"""Say what a video shows, with ONNX Runtime, NumPy and Pillow alone: all its frames in, a line of JSON out.

    python predict_onnx.py FRAME.jpg FRAME.jpg ...

This folder's README.md says how to cut a video into frames. Nothing here needs the project that made this folder.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image

HERE = Path(__file__).parent


def sample(num_frames: int, count: int, pad: str) -> list[int]:
    """Which frames of a clip are seen: the centres of `count` equal parts."""
    if num_frames < count or (pad == "first" and num_frames == count):
        return [0] * count if pad == "first" else [min(i, num_frames - 1) for i in range(count)]
    tick = num_frames / count
    return [int(tick / 2.0 + tick * i) for i in range(count)]


def candidates(num_frames: int, count: int) -> list[int]:
    """Of a model that chooses frames, those that it chooses among: the same centres, in clips of any length."""
    tick = num_frames / count
    return [int(tick / 2.0 + tick * i) for i in range(count)]


def ordered(num_frames: int, which: str, data: dict) -> list[int]:
    """The same in the order in which the networks see them."""
    frames = sample(num_frames, data[which], data["pad"])
    return [frames[i] for i in data["order"]] if data["order"] else frames


def read(path: str, facts: dict) -> np.ndarray:
    """A frame as the networks see it, uint8 (3, crop, crop): the short side scaled, the centre kept."""
    short, crop = facts["preprocessing"]["resize_short_side"], facts["preprocessing"]["crop"]
    image = Image.open(path).convert("RGB")
    least = min(image.size)
    size = (short * image.width // least, short * image.height // least)
    if image.size != size:
        image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - crop) / 2), round((size[1] - crop) / 2)
    return np.asarray(image)[top : top + crop, left : left + crop].transpose(2, 0, 1).copy()


def main(paths: list[str]) -> dict:
    """The prediction at every exit, and where the patches were."""
    facts = json.loads((HERE / "facts.json").read_text("utf-8"))
    sessions = {name: onnxruntime.InferenceSession(HERE / f"{name}.onnx") for name in facts["programs"]}

    def run(part: str, **inputs: np.ndarray) -> dict:
        names = facts["programs"][part]["outputs"]
        return dict(zip(names, sessions[part].run(names, inputs), strict=True))

    def look(images: np.ndarray, corner: np.ndarray) -> np.ndarray:
        """The focuser's features of one patch in each image; between pixels it cuts them out itself."""
        if facts["patches"] == "between pixels":
            return run("focuser", frames=images, corner=np.repeat(corner[None], len(images), 0))["focus"]
        row, column = corner
        return run("focuser", patches=images[:, :, row : row + side, column : column + side].copy())["focus"]

    data, side = facts["preprocessing"], facts["patch_size"]
    states = {name: np.zeros(shape, np.float32) for name, shape in facts["states"].items()}
    paths = sorted(paths)
    offered = candidates(len(paths), data["num_candidates"]) if data["num_candidates"] else []
    places = data["glance_places"]  # of the glancer's frames among these, where they are
    seen = [offered[i] for i in places] if places else ordered(len(paths), "num_frames", data)
    glance = run("glancer", frames=np.stack([read(paths[i], facts) for i in seen]))
    sizes = None

    def frames() -> np.ndarray:
        """Those that the focuser sees."""
        return np.stack([read(paths[i], facts) for i in ordered(len(paths), "num_focus_frames", data)])

    glance_input = facts["glance_input"]  # which of the glancer's outputs the classifier takes, if any

    if facts["by"] == "choice":  # some of the candidates, and boxes of their own sizes
        choice = run("policy", map=glance["map"], feature=glance["feature"])
        chosen = np.stack([read(paths[offered[i]], facts) for i in choice["places"]])
        boxes = np.broadcast_to(choice["boxes"], (len(chosen), 4)).copy()
        focus = run("focuser", frames=chosen, boxes=boxes)["focus"]
        more = {name: glance[name] for name in facts["programs"]["classifier"]["inputs"] if name in glance}
        logits = run("classifier", focus=focus, **more)["prediction"]
        corners, sizes = boxes[:, :2].tolist(), boxes[:, 2:].tolist()
    elif facts["by"] == "clip":  # one patch for the whole clip
        corner = run("policy", map=glance["map"], policy_state=states["policy_state"])["corner"][0]
        focus = look(frames(), corner)
        more = {"glance": glance[glance_input]} if glance_input else {}
        logits = run("classifier", focus=focus, **more)["prediction"]
        corners = [corner.tolist()]
    else:  # a patch for every frame
        corners, logits = [], []
        for i, frame in enumerate(frames()):
            choice = run("policy", map=glance["map"][i : i + 1], policy_state=states["policy_state"])
            states["policy_state"] = choice["next_policy_state"]
            corner = choice["corner"][0]
            focus = look(frame[None], corner)
            more = {"glance": glance[glance_input][i : i + 1]} if glance_input else {}
            answer = run("classifier", focus=focus, classifier_state=states["classifier_state"], **more)
            states["classifier_state"] = answer["next_classifier_state"]
            corners.append(corner.tolist())
            logits.append(answer["prediction"][0])
        logits = np.stack(logits)

    probability = np.exp(logits - logits.max(-1, keepdims=True))
    probability /= probability.sum(-1, keepdims=True)
    best = np.argsort(-probability[-1])[:5]
    return {
        "top": [{"class": facts["class_names"][k], "probability": float(probability[-1, k])} for k in best],
        "probability": probability.tolist(),
        "corners": corners,
        **({} if sizes is None else {"sizes": sizes}),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
