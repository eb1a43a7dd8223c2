"""A local Triton: assembled from the PyPI wheel, started, watched and stopped.

`LocalTriton` serves a model repository on free loopback ports; ``python -m server --help`` is the same
on the command line. The folder ``backends/`` holds the Python-based ``onnxruntime`` and ``pytorch``
backends that let the wheel's server run a repository written for NVIDIA's container unchanged.
"""
