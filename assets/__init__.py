"""Files that are fetched, and where they are: pinned wheels, published weights, paths. Imports none of its users."""
