"""From annotations and videos to WebDataset shards with a Parquet index. Imports neither torch, Ray nor MLflow."""
