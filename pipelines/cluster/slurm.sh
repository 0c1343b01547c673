#!/usr/bin/env bash
# A sweep on Slurm: a Ray cluster over the nodes of this allocation, and MLflow on the first of them. From a checkout:
#
#     sbatch --nodes 4 pipelines/cluster/slurm.sh
#
# Set the places below (or export them before): all lie on the shared file system or at a URL. The environment of the nodes is .venv of
# this checkout. ~/mlflow.env holds `export` lines for what mlflow.sh names, ~/adafocus.env those for MLFLOW_TRACKING_USERNAME and _PASSWORD.
# A job that ran into its time limit goes on where it stopped when it is submitted again; two minutes before, and by
# `scancel --batch --signal TERM JOB`, it closes its runs in MLflow.
#SBATCH --job-name=adafocus
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --gpus-per-node=4
#SBATCH --time=72:00:00
#SBATCH --no-kill
#SBATCH --signal=B:TERM@120
set -euo pipefail
export DATASET=${DATASET:-activitynet} RECIPE=${RECIPE:-activitynet-128} NAME=${NAME:-an128}
export DATA_ROOT=${DATA_ROOT:-/shared/$DATASET} SHARDS=${SHARDS:-/shared/shards/$DATASET} RUNS=${RUNS:-/shared/runs}
export TUNE_ARGS=${TUNE_ARGS:---space recipe --num-samples 8 --gpus-per-worker 1}
export BENCHMARK_ARGS=${BENCHMARK_ARGS:---gpus-per-worker 1}

cd "${SLURM_SUBMIT_DIR:?submit me with sbatch}"
# shellcheck source=/dev/null
. .venv/bin/activate
# shellcheck source=/dev/null
. ~/adafocus.env
[ -r ~/mlflow.env ] || { echo "there is no ~/mlflow.env: see the head of $0" >&2 && exit 2; }
export ADAFOCUS_COMMIT=${ADAFOCUS_COMMIT:-$(git rev-parse HEAD)}
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK # since Slurm 22.05 srun does not take it from the job by itself
mapfile -t nodes < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes[0]}
address=$(srun --nodes=1 --ntasks=1 -w "$head" hostname -I | cut -d' ' -f1)
port=$((20000 + SLURM_JOB_ID % 10000)) # several jobs may share a node

# A token of this job's own: nobody else on these nodes can use its Ray.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN RAY_ADDRESS=$address:$port RAY_TMPDIR=/tmp/ray-$SLURM_JOB_ID
RAY_AUTH_TOKEN=$(python -c 'import secrets; print(secrets.token_hex(32))')

export MLFLOW_HOST=$address MLFLOW_PORT=$((port + 10000))
export MLFLOW_TRACKING_URI=http://$address:$MLFLOW_PORT
( # shellcheck source=/dev/null
  . ~/mlflow.env # for the server alone
  exec srun --overlap --nodes=1 --ntasks=1 -w "$head" bash pipelines/cluster/mlflow.sh
) > "mlflow-$SLURM_JOB_ID.log" 2>&1 &

common=(--disable-usage-stats --num-cpus="$SLURM_CPUS_PER_TASK" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" --block)
srun --overlap --nodes=1 --ntasks=1 -w "$head" \
  ray start --head --node-ip-address="$address" --port="$port" --dashboard-host=127.0.0.1 "${common[@]}" &
ray_head=$!
deadline=$((SECONDS + 300))
until ray status > /dev/null 2>&1; do
  if ! kill -0 "$ray_head" 2> /dev/null || [ "$SECONDS" -ge "$deadline" ]; then
    echo "Ray did not start on $head: see above" >&2
    exit 1
  fi
  sleep 2
done
for node in "${nodes[@]:1}"; do
  srun --overlap --nodes=1 --ntasks=1 -w "$node" ray start --address="$RAY_ADDRESS" "${common[@]}" &
done

bash pipelines/cluster/job.sh & # here, which is the first node: srun would not hand the signal on, but kill its step
job=$!
trap 'kill -TERM "$job"' TERM
status=0
wait "$job" || status=$?
trap '' TERM
if kill -0 "$job" 2> /dev/null; then wait "$job" || status=$?; fi # the first wait ended with the signal
exit "$status"
