"""Training of the two looks (:mod:`networks.looks`): on samples, whose codes and edits are known, and on real faces."""
