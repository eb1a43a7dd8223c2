"""Build time: from published weights to a Triton model repository. See ``python -m export --help``."""
