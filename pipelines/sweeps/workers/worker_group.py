"""Several workers that train one trial together: a Ray Train group that the trial owns, gradients averaged by torch.

The function that every worker runs comes in, nothing comes out: the workers write their results themselves. They talk
by nccl where they have GPUs, by gloo elsewhere.

A trial that is stopped leaves its group's resources behind. Ray's cleaner gives them back if the State API answers, so
Ray's dashboard is needed (`has_dashboard`); where several clusters run on one machine the cleaner does not know which
one it belongs to and dies (Ray 2.60). So workers report which resources they hold, and the driver gives them back.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import ray.exceptions
import ray.train
import ray.util
import torch.distributed
from ray._raylet import PlacementGroupID
from ray.train.torch import TorchConfig, TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback
from ray.util.placement_group import PlacementGroup

from pipelines.ray_runtime.resources import Resources

TRAIN_SETTINGS = {
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600",  # importing torch may take a minute
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",  # how often an epoch's report is fetched
}
"""Environment variables, read by Ray Train in the trial."""
PATIENCE_S = 4 * 3600
"""How long workers wait for one another: rank 0 may have to write to a slow storage."""


class WorkersDiedError(RuntimeError):
    """Workers of a group died without raising anything: their trial is worth another start."""


def own_group_id() -> str | None:
    """Id of the placement group that holds this worker's resources; None outside of a group."""
    group = ray.util.get_current_placement_group()
    return None if group is None else str(group.id.hex())


def release_group(group_id: str | None) -> None:
    """Give back the resources of a trial's workers, if they are a group and still hold them."""
    if group_id is not None:
        ray.util.remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(group_id))))


def train_in_group(work: Callable[[], None], resources: Resources, folder: Path, *, in_trial: bool) -> None:
    """Run `work` on all workers until all have ended. In a trial what they report to Ray Train goes on to Ray Tune.

    Raises what a worker raised, WorkersDiedError if none raised and some died.
    """
    for key, value in TRAIN_SETTINGS.items():
        os.environ.setdefault(key, value)
    trainer = TorchTrainer(
        work,
        torch_config=TorchConfig(timeout_s=PATIENCE_S),
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.workers_per_trial,
            use_gpu=resources.gpus_per_worker > 0,
            resources_per_worker={
                "CPU": resources.cpus_per_worker,
                **({"GPU": resources.gpus_per_worker} if resources.gpus_per_worker else {}),
            },
        ),
        run_config=ray.train.RunConfig(
            name=f"{time.time_ns()}",  # a new one for every start: nothing of Ray's own state is used again
            storage_path=str(folder),
            callbacks=[TuneReportCallback()] if in_trial else [],
        ),
    )
    try:
        trainer.fit()
    except ray.train.WorkerGroupError as error:
        # Ray wraps what a worker raised, to keep its traceback.
        causes = [getattr(each, "_base_exc", each) for each in error.worker_failures.values()]
        died = [each for each in causes if _means_death(each)]
        if died or not causes:
            reason = str(died[0]).strip().splitlines()[0] if died else str(error)
            raise WorkersDiedError(f"a worker of the group died: {reason}") from None
        raise causes[0] from None
    except ray.exceptions.RayError as error:  # as when the driver has taken a pruned trial's resources back
        raise WorkersDiedError(f"the group's controller died: {str(error).strip().splitlines()[0]}") from None


def _means_death(error: Exception) -> bool:
    """Does an error mean that a worker was killed: this one, or another that it waited for? Such an error is Ray's own,
    or one of torch's communication; what a worker's code raised is of neither kind."""
    of_ray = type(error).__module__.partition(".")[0] == "ray"
    of_torch = isinstance(error, torch.distributed.DistError)
    return of_ray or of_torch or (isinstance(error, RuntimeError) and "gloo" in str(error))
