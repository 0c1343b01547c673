"""The names of metrics in MLflow: the one table that docs/metrics.md shows and that tests hold the logs to."""

from __future__ import annotations

import re

from adafocus.methods import stage_names

METRICS: tuple[tuple[str, str], ...] = (
    (
        "score",
        "the data set's metric on the evaluation split (%), whatever the method: of a trial's newest evaluation, "
        "or of a benchmark's first row",
    ),
    ("gflops", "multiply-adds (10^9) per video of a benchmark's first row"),
    ("videos_per_s", "of a benchmark's first row"),
    ("latency_ms", "of a benchmark's first row"),
    (
        "<split>_top1",
        "of a finished checkpoint on a split (%), which its page among MLflow's models shows by data set; "
        "top5, map, hit_rate, looked likewise",
    ),
    ("pretrain/glancer_loss", "cross-entropy of the glancer on training clips"),
    ("pretrain/glancer_accuracy", "its accuracy (%) on training clips"),
    ("pretrain/focuser_loss", "the same of the focuser, on whole frames"),
    ("pretrain/focuser_accuracy", "its accuracy (%) on training clips"),
    ("pretrain/val_<network>_top1", "glancer or focuser alone on the evaluation split (%); top5 and map likewise"),
    ("<stage>/loss", "what the optimizer minimises"),
    ("<stage>/accuracy", "on training clips (%)"),
    ("<stage>/val_top1", "on the evaluation split (%)"),
    ("<stage>/val_top5", "the same, among the five best"),
    ("<stage>/val_map", "mean average precision on the evaluation split (%)"),
    ("<stage>/val_<score>_t<tt>", "the data set's metric after frame 01, 02, ...; in pretrain of each network"),
    ("<stage>/val_hit_rate", "frames with an object (%) whose patch holds all of it, where boxes are known"),
    ("<stage>/val_covered", "how much of the object's box (%) lies in the patch, of the same frames"),
    ("<stage>/grad_norm", "where gradients are clipped: their norm before"),
    ("<stage>/lr", "learning rate of the first parameter group"),
    ("<stage>/seconds", "training time of the epoch"),
    ("ppo/reward", "mean reward of the policy's patches"),
    ("ppo/reward_t<tt>", "the same at time step 01, 02, ..."),
    ("<stage>/policy_loss", "in ppo and skip: clipped surrogate loss"),
    ("<stage>/value_loss", "squared error of the value estimate"),
    ("<stage>/entropy", "of what acts, in nats"),
    ("<stage>/ratio", "mean ratio of new to old probability: 1 in the first pass over a batch; mean over all passes"),
    ("<stage>/approx_kl", "estimated divergence from the old policy"),
    ("<stage>/clip_fraction", "share of ratios that were clipped"),
    ("<stage>/explained_variance", "of the returns, by the value estimate; mean over micro-batches"),
    ("skip/reward", "mean reward of the gate's decisions, the price of looks taken off"),
    ("skip/looked", "chance of a frame (%) to be looked at; its mean follows the budget"),
    ("skip/price", "what a look costs in the reward, in confidence"),
    ("skip/threshold", "of the gate's score, above which a frame is looked at once training is over"),
    ("skip/class_loss", "cross-entropy of the classifier"),
    ("<stage>/val_looked", "frames (%) that are looked at, where the method skips any"),
    ("bench/<patches>/top1", "in percent, by where the focuser looked; top5, map, hit_rate and covered likewise"),
    ("bench/<patches>/gflops", "multiply-adds (10^9) per video"),
    ("bench/<patches>/videos_per_s", "the model alone, a batch at a time"),
    ("bench/<patches>/latency_ms", "one video at a time"),
    ("bench/<patches>/memory_mb", "most that a batch and what is made of it take at one time, beside the weights"),
    ("online/<patches>/top1", "after 1, 2, ... frames (the step), in percent; map likewise"),
    (
        "exit/top1",
        "with early exit (%), by the budget in percent of a whole clip's compute (the step); map, top5 likewise",
    ),
    ("exit/budget", "the same budget in GFLOPs per video"),
    ("exit/gflops", "multiply-adds (10^9) per video that were computed by the clips' exits, in the mean"),
    ("exit/pro_rata_gflops", "the same with every exit counted as its share of the total"),
    ("exit/frames", "frames that were seen of a clip, in the mean"),
    ("exit/videos_per_s", "of a batch from which clips are taken out when they stop"),
    ("exit/latency_ms", "one video at a time, in the mean"),
    ("system/<host>/<what>", "processor, memory, disk, network and GPU of the machine, every ten seconds"),
    ("trials", "of a sweep: how many there are"),
    ("trials_<outcome>", "how many of them were finished, pruned, failed, or stopped by the time budget"),
    ("reuse/stages_trained", "of a sweep: stages that were begun after it was"),
    ("reuse/stages_reused", "times that a trial found a stage finished"),
    ("reuse/hours_trained", "training time of the stages that were trained"),
    ("reuse/hours_saved", "what the trials would have trained each for itself, less that"),
)
"""Name and meaning. `<...>` stands for the words of PLACES."""

IN_WORDS = {"map": "mAP", "top1": "top-1"}
"""A data set's metric, for readers."""

SCORES = ("top1", "top5", "map", "hit_rate", "covered", "looked")
"""What an evaluation says of a split, in percent."""
_LOOKS = (
    "policy|policy_every|policy_random|policy_fewer|random|centre|oracle|glancer|warmup_random|"
    "probe_glancer|probe_focuser|attentive_glancer|attentive_focuser"
)
PLACES = {
    "<stage>": "|".join(stage_names()),
    "<split>": "train|val|test",
    "<network>": "glancer|focuser",
    "<patches>": f"(?:{_LOOKS})(?:_bf16|_fp16)?(?:_compiled)?",
    "<score>": "(?:glancer_|focuser_)?(?:top1|map)",
    "<tt>": r"\d\d",
    "<outcome>": "finished|pruned|failed|stopped",
    "<host>": r"[\w.-]+",
    "<what>": r"\w+",
}


def explain(name: str) -> str | None:
    """The table's name that stands for a logged metric; None for one that the table does not know."""
    return next((shown for shown, _ in METRICS if re.fullmatch(_pattern(shown), name)), None)


def table() -> str:
    """The table in Markdown."""
    rows = [f"| `{shown}` | {meaning} |" for shown, meaning in METRICS]
    return "\n".join(["| metric | what it is |", "|---|---|", *rows])


def _pattern(shown: str) -> str:
    pattern = shown
    for place, words in PLACES.items():
        pattern = pattern.replace(place, f"(?:{words})")
    if "likewise" in dict(METRICS)[shown]:
        pattern = pattern.removesuffix("top1") + f"(?:{'|'.join(SCORES)})"
    return pattern
