"""The wire contract between client and side-car: ``refine.proto`` and the stubs that are generated from it.

``python -m protocol`` regenerates the stubs; it needs grpcio-tools.
"""
