"""The command line: Ray runs the work, MLflow keeps the results."""

import adafocus  # noqa: F401  first of all: it says how torch's threads wait, which torch reads when it is loaded
