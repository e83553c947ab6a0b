"""Train facial-emotion classifiers and keep every run in MLflow."""

__version__ = "0.1.0"
