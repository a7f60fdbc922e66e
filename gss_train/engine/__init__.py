"""Training and evaluation: objective, loop, checkpoints, tables and pictures."""
