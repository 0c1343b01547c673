"""Where the files for clusters are, and what the job reads."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "pipelines" / "cluster"
JOB_READS = ("DATASET", "DATA_ROOT", "SHARDS", "RUNS", "RECIPE", "NAME", "MLFLOW_TRACKING_URI", "ADAFOCUS_COMMIT")
