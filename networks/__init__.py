"""The mathematics: generators, encoder, P-norm+ and perceptual distance, in plain PyTorch.

Nothing here reads or writes anything but safetensors, and nothing here knows of servers.
Throughout, ``M`` is the first fine layer (after the cut), ``f`` the feature map the coarse half
hands to the fine half, and ``w_m_plus`` (the paper's w_M+) the styles of the fine layers.
"""
