"""The flows on Prefect and the `rlhf` command."""
