"""The table of data sets. A new one is a small file with `read_clips(root)` and one line in DATASETS."""

from __future__ import annotations

import difflib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from preprocessing.datasets.class_names import check_class_names, log_similar_names
from preprocessing.schema import Clip, DatasetInfo, UserError


@dataclass(frozen=True, slots=True)
class Dataset:
    """One line of the table. `reader` and `maker` are "module.function" in this package, imported when needed."""

    name: str
    reader: str
    aliases: tuple[str, ...] = ()
    maker: str = ""
    """Makes the files below the data root first, for a data set that is not downloaded. Cheap if they are there."""

    def read_clips(self, root: Path) -> tuple[DatasetInfo, list[Clip]]:
        """Facts and clips in a stable order. Raises UserError for annotations that are absent or wrong."""
        info, clips = self._function(self.reader)(root)
        check_class_names(info.class_names, lambda name: str(root))
        log_similar_names(info.class_names, str(root))
        return info, clips

    def make(self, root: Path) -> None:
        """Make the files below `root` if this data set makes its own."""
        if self.maker:
            root.mkdir(parents=True, exist_ok=True)
            self._function(self.maker)(root)

    def _function(self, name: str) -> Any:
        module, _, function = name.partition(".")
        return getattr(importlib.import_module(f"{__name__}.{module}"), function)


DATASETS = (
    Dataset("activitynet", "activitynet.read_clips", aliases=("actnet",)),
    Dataset("fcvid", "fcvid.read_clips"),
    Dataset("minikinetics", "minikinetics.read_clips", aliases=("minik",)),
    Dataset("ssv1", "something.read_ssv1", aliases=("somethingv1",)),
    Dataset("ssv2", "something.read_ssv2", aliases=("somethingv2",)),
    Dataset("folder", "folder.read_clips"),
    Dataset("synthetic", "synthetic.read_clips", maker="synthetic.make"),
)


def find_dataset(name: str) -> Dataset:
    """The data set of that name or short name. Raises UserError that names the nearest known one."""
    table = {alias: dataset for dataset in DATASETS for alias in (dataset.name, *dataset.aliases)}
    if name in table:
        return table[name]
    near = difflib.get_close_matches(name, table, n=1, cutoff=0.0)[0]
    raise UserError(f"unknown data set {name!r}; did you mean {near!r}? Known: {', '.join(table)}")
