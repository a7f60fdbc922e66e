"""RFNet trained for minutes on a lent GPU: `python -m benchmarks.train`."""
