"""The side-car: refinement of inversions by optimisation, in PyTorch, as a gRPC service beside Triton."""
