"""A campaign: its rounds in order, what is remembered of them, and what they leave in MLflow and in reports."""
