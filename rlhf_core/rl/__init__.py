"""Pure tensor functions of reinforcement learning: advantages, losses, KL estimators, controllers."""
