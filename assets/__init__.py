"""What is fetched and where it lies: pinned wheels, published weights, paths. Nothing here imports its users."""
