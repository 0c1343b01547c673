#!/usr/bin/env bash
# What a cluster runs: preprocess, a sweep, its best trials measured, the report. Submit it from a checkout, which is sent along
# (Ray leaves out what .gitignore and .rayignore name):
#
#     ray job submit --working-dir . --runtime-env-json "$JOB" -- bash pipelines/cluster/job.sh
#
# JOB is {"env_vars": {...}}: what it names reaches this script and every worker. Never a password: Ray's dashboard shows it.
# Places, all of them seen alike by every node:
#   DATASET, DATA_ROOT   the data set and the folder of its videos and annotations
#   SHARDS               folder or URL (s3://, gs://) of the shards
#   RUNS                 shared folder of stage results: they are committed by rename, so a file system, not a URL
#   RECIPE, NAME         recipe and name of the sweep
#   MLFLOW_TRACKING_URI  http://HOST:PORT of the MLflow server
#   ADAFOCUS_COMMIT      commit of the files that are sent, which come without their history: logged with every run
# PREPROCESS_ARGS, TUNE_ARGS and BENCHMARK_ARGS (--best 3 --gpus-per-worker 1) are added to the commands. Whatever is killed goes
# on where it stopped when it is submitted again.
#
# Exit status: 0 done; TRIALS_FAILED_STATUS (1 unless set) if trials failed, which the report lists: what finished is measured
# and reported all the same; else that of the command that could not work. Set it to 0 where a failed job is repeated by itself.
set -euo pipefail
: "${DATASET:?}" "${DATA_ROOT:?}" "${SHARDS:?}" "${RUNS:?}" "${RECIPE:?}" "${NAME:?}" "${MLFLOW_TRACKING_URI:?}"
: "${ADAFOCUS_COMMIT:?}"
export ADAFOCUS_RUNS=$RUNS

adafocus() { # in the background, for bash hears a signal only while it waits
  python -m pipelines.cli "$@" &
  child=$!
  wait "$child"
}
stop() { # whoever stops this script alone stops the command that it runs, which closes its runs in MLflow
  trap '' TERM INT
  if kill -TERM "${child:-}" 2> /dev/null; then wait "$child" || true; fi
  exit 143
}
trap stop TERM INT

# shellcheck disable=SC2086  # several words each
adafocus preprocess --dataset "$DATASET" --data-root "$DATA_ROOT" --out "$SHARDS" --ray-address auto ${PREPROCESS_ARGS:-}
tuned=0
# shellcheck disable=SC2086
adafocus tune --recipe "$RECIPE" --shards "$SHARDS" --name "$NAME" --ray-address auto ${TUNE_ARGS:-} || tuned=$?
[ "$tuned" -le 1 ] || exit "$tuned"
# shellcheck disable=SC2086
adafocus benchmark --sweep "$NAME" --shards "$SHARDS" --ray-address auto ${BENCHMARK_ARGS:-}
adafocus report --name "$NAME" --out "$RUNS/results/RESULTS.md"
[ "$tuned" -eq 0 ] || exit "${TRIALS_FAILED_STATUS:-1}"
