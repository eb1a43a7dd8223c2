"""What client and side-car share: the wire contract ``refine.proto``, and its vocabulary as data. Imports no PyTorch.

``python -m protocol`` regenerates the stubs of ``refine.proto``; it needs grpcio-tools.
"""
