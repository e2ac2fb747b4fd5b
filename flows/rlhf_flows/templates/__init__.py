"""Files that `rlhf init` and `rlhf plugins new` write."""
