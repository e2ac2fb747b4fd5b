"""Running a graph on Prefect: each stage a task run, wherever it is placed, with its result kept under its key."""
