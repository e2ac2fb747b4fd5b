"""What the optimizers for control share: the learnt reward in the environment's place, and Stable-Baselines3."""
