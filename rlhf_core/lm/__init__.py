"""Language-model kit: loading, prompt formats, the rollout engine, log-probabilities."""
