"""Options that several verbs have: type, name and help of each, said once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_RUNS = Path("runs")

Json = Annotated[bool, typer.Option("--json", help="Print rows for programs instead of a table.")]
RunsFolder = Annotated[
    Path, typer.Option("--runs", envvar="ADAFOCUS_RUNS", help="Folder of stage results and the MLflow store.")
]
SHARDS_HELP = "Folder or URL of a preprocessed data set."
Shards = Annotated[str, typer.Option(help=SHARDS_HELP)]
ShardsArgument = Annotated[str, typer.Argument(metavar="DIR", help=SHARDS_HELP)]
RayAddress = Annotated[str | None, typer.Option(help="Ray cluster to use, e.g. auto [start one here].")]

RECIPE_HELP = "Name of a recipe; `adafocus recipes` lists them."
RecipeName = Annotated[str, typer.Option(help=RECIPE_HELP)]
Changes = Annotated[list[str] | None, typer.Option("--set", help="Change a setting: --set ppo.lr=1e-4.")]
ScaleLr = Annotated[
    bool, typer.Option("--scale-lr", help="Scale SGD's learning rates with the global batch, from the recipe's.")
]

Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
NumWorkers = Annotated[int, typer.Option(help="Processes that load clips, per training worker.")]
EvalEvery = Annotated[
    int, typer.Option(help="Epochs between evaluations; a stage's last epoch is always evaluated.", min=1)
]
SaveEvery = Annotated[
    float, typer.Option(help="Seconds between states saved inside an epoch; one is saved after each too.", min=0)
]

RunName = Annotated[str | None, typer.Option("--run", help="Use this MLflow run: its id, name, or sweep and name.")]
SweepName = Annotated[str | None, typer.Option("--sweep", help="Use the best trial of this sweep.")]
CheckpointFolder = Annotated[Path | None, typer.Option("--checkpoint", help="Use the model in this folder.")]
