"""Benchmarks of the loss, of training steps and of the data pipeline; see README.md."""
