"""The gRPC service: requests, queue, batches of jobs, streams, metrics and log. Knows no PyTorch."""
