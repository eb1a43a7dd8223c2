"""Generators, encoder, P-norm+ and perceptual distance, in plain PyTorch.

The only files read or written here are safetensors, and nothing here knows about servers. Throughout, ``M`` is the
first fine layer, the one after the cut; ``f`` is the feature map that the coarse half passes to the fine half; and
``w_m_plus`` (the paper's w_M+) are the styles of the fine layers.
"""
