"""Files: photos, inversions, directions, contact sheets, and writing them whole."""
