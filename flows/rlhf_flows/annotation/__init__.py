"""The pages where people answer and their lead looks on: `rlhf annotate`."""
