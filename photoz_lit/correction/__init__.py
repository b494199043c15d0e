"""What removes the biases: label tables (Steps 2 and 3); the place of Step 4."""
