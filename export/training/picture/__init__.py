"""The training of the picture head, with the looks fixed."""
