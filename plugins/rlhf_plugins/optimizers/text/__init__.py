"""The training step that all optimizers of language models share: answer, grade, learn; again and again."""
