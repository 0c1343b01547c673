"""`python -m pipelines.cli`: the command line where the package is not installed."""

from __future__ import annotations

from pipelines.cli.main import main

if __name__ == "__main__":
    main()
