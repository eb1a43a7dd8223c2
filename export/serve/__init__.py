"""Exported graphs, the model repository that Triton serves, and the check that both agree with PyTorch."""
