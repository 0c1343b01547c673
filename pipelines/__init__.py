"""The command line: Ray runs the work, MLflow keeps the results."""

import gc

import adafocus  # noqa: F401  first of all: it says how torch's threads wait, which torch reads when it is loaded

# Not after every 700 new objects: of the time that importing torch, Ray and MLflow takes, a fifth went into looking for
# garbage, and what modules define is none.
if 0 < gc.get_threshold()[0] < 10_000:  # else the user has set it
    gc.set_threshold(10_000)
