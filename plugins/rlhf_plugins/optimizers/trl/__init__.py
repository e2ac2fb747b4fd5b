"""TRL's own trainers behind our contract, so that one word in a pipeline compares ours with theirs."""
