"""The bodies of the stages: plugins at work, between input and output artifacts. Nothing here knows Prefect."""
