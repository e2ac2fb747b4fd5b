"""What the optimizers for control share: the learnt reward in place of the environment's, and Stable-Baselines3 as engine."""
