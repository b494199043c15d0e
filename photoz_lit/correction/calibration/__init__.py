"""Step 4: calibration of photo_z against the bulk bias."""
