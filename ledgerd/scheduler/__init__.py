"""Work that nobody asks for: the nightly billing, and the scoring of borrowers from their bank history."""
