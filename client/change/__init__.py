"""What an edit changes, carried over from the generator's picture into the whole photo."""
