#!/usr/bin/env bash
# What a cluster runs: preprocess, a sweep, its best trial measured, the report. Submit it from a checkout, which is sent along:
#
#     ray job submit --working-dir . --runtime-env pipelines/cluster/runtime.yaml -- bash pipelines/cluster/job.sh
#
# Places come from the environment, all of them seen alike by every node:
#   DATASET, DATA_ROOT   the data set and the folder of its videos and annotations
#   SHARDS               folder or URL (s3://, gs://) of the shards
#   RUNS                 shared folder of stage results: they are committed by rename, so a file system, not a URL
#   RECIPE, NAME         recipe and name of the sweep
#   MLFLOW_TRACKING_URI  http://HOST:PORT of the MLflow server
# PREPROCESS_ARGS and TUNE_ARGS are added to the commands. Whatever is killed goes on where it stopped when it is submitted again.
set -euo pipefail
: "${DATASET:?}" "${DATA_ROOT:?}" "${SHARDS:?}" "${RUNS:?}" "${RECIPE:?}" "${NAME:?}" "${MLFLOW_TRACKING_URI:?}"
export ADAFOCUS_RUNS=$RUNS

adafocus() { python -m pipelines.cli "$@"; }

# shellcheck disable=SC2086  # several words each
adafocus preprocess --dataset "$DATASET" --data-root "$DATA_ROOT" --out "$SHARDS" --ray-address auto ${PREPROCESS_ARGS:-}
# shellcheck disable=SC2086
adafocus tune --recipe "$RECIPE" --shards "$SHARDS" --name "$NAME" --ray-address auto ${TUNE_ARGS:-}
adafocus benchmark --sweep "$NAME" --shards "$SHARDS"
adafocus report --name "$NAME" --out "$RUNS/results/RESULTS.md"
