"""The recipes that there are: whole configurations by name, those of published runs and two for a CPU.

Number of classes, metric, flipping and padding are facts of a data set and travel with its shards. Values are those of
the authors' commands; where they published none, the recipe's docstring says what stands in.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from adafocus.config.schema import Config
from pipelines.recipes import cpu, second_version, small_objects, something_something, unified, untrimmed
from preprocessing.schema import UserError

Recipe = Callable[[], Config]

RECIPES: dict[str, Recipe] = {
    "activitynet-96": untrimmed.activitynet_96,
    "activitynet-128": untrimmed.activitynet_128,
    "activitynet-160": untrimmed.activitynet_160,
    "activitynet-192": untrimmed.activitynet_192,
    "fcvid-128": untrimmed.fcvid_128,
    "minikinetics-128": untrimmed.minikinetics_128,
    "ssv1-144": something_something.ssv1_144,
    "ssv1-160": something_something.ssv1_160,
    "ssv1-176": something_something.ssv1_176,
    "ssv2-144": something_something.ssv2_144,
    "ssv2-160": something_something.ssv2_160,
    "ssv2-176": something_something.ssv2_176,
    "activitynet-plus-128": untrimmed.activitynet_plus_128,
    "activitynet-v2-96": second_version.activitynet_v2_96,
    "activitynet-v2-128": second_version.activitynet_v2_128,
    "activitynet-v2-160": second_version.activitynet_v2_160,
    "activitynet-v2-r50-96": second_version.activitynet_v2_r50_96,
    "activitynet-v2-r50-128": second_version.activitynet_v2_r50_128,
    "activitynet-v2-r50-160": second_version.activitynet_v2_r50_160,
    "fcvid-v2-128": second_version.fcvid_v2_128,
    "minikinetics-v2-128": second_version.minikinetics_v2_128,
    "ssv1-v2-128": second_version.ssv1_v2_128,
    "ssv1-v2-144": second_version.ssv1_v2_144,
    "ssv1-v2-160": second_version.ssv1_v2_160,
    "ssv1-v2-176": second_version.ssv1_v2_176,
    "ssv2-v2-128": second_version.ssv2_v2_128,
    "ssv2-v2-144": second_version.ssv2_v2_144,
    "ssv2-v2-160": second_version.ssv2_v2_160,
    "ssv2-v2-176": second_version.ssv2_v2_176,
    "activitynet-uni-96": unified.activitynet_uni_96,
    "activitynet-uni-128": unified.activitynet_uni_128,
    "activitynet-uni-160": unified.activitynet_uni_160,
    "fcvid-uni-128": unified.fcvid_uni_128,
    "minikinetics-uni-128": unified.minikinetics_uni_128,
    "ssv1-uni-96-8": unified.ssv1_uni_96_8,
    "ssv1-uni-96-12": unified.ssv1_uni_96_12,
    "ssv1-uni-128-12": unified.ssv1_uni_128_12,
    "ssv1-uni-128-16": unified.ssv1_uni_128_16,
    "ssv2-uni-96-8": unified.ssv2_uni_96_8,
    "ssv2-uni-96-12": unified.ssv2_uni_96_12,
    "ssv2-uni-128-12": unified.ssv2_uni_128_12,
    "ssv2-uni-128-16": unified.ssv2_uni_128_16,
    "demo": cpu.demo,
    "demo-plus": cpu.demo_plus,
    "demo-v2": cpu.demo_v2,
    "demo-uni": cpu.demo_uni,
    "folder": cpu.folder,
    "lips": small_objects.lips,
    "lips-v2": small_objects.lips_v2,
    "sky": small_objects.sky,
    "sky-v2": small_objects.sky_v2,
    "sky-uni": small_objects.sky_uni,
}


def about(name: str) -> str:
    """A recipe in one line."""
    return (RECIPES[name].__doc__ or "").splitlines()[0]


def find_recipe(name: str) -> Config:
    """The configuration of a recipe. Raises UserError for an unknown one, naming the nearest."""
    if name not in RECIPES:
        near = difflib.get_close_matches(name, RECIPES, n=1, cutoff=0.0)[0]
        raise UserError(f"unknown recipe {name!r}; the nearest known one is {near!r} (`adafocus recipes` lists all)")
    return RECIPES[name]()
