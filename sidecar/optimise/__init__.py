"""The optimisation of BDInvert, section 3.3, in PyTorch."""
