"""The command line: Ray runs the work, MLflow keeps the results."""
