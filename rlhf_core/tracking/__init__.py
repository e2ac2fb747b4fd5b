"""Tracking on MLflow; the only importer of mlflow."""
