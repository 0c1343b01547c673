"""AdaFocus: models, training stages and evaluation. Imports torch, but neither Ray nor MLflow."""
