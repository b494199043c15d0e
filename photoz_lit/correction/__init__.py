"""What removes the biases: Steps 2 and 3, what follows on finished p(z), and the calibration of Step 4."""

CHUNK = 4096  # galaxies whose p(z), neighbours or scores are in memory together
