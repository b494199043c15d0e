"""What the page of a data set takes for usual; what lies beyond is said at its top."""

# Columns of the table: least and greatest. `mag` and `err` stand for all magnitudes and their errors.
COLUMNS = {
    "spec_z": (-0.01, 8.0),
    "dered_petro_r": (5.0, 30.0),
    "ebv": (0.0, 3.0),
    "ra": (0.0, 360.0),
    "dec": (-90.0, 90.0),
    "mag": (5.0, 35.0),
    "err": (0.0, 5.0),
}
NO_NUMBERS = (-9999.0, -999.0, -99.0, 99.0, 999.0, 9999.0, 99999.0)  # what tables write for "not known"
FAR = 10.0  # from the median, in units of the range from 1 to 99 per cent
ENOUGH = 100  # galaxies, to know that range

# Shares of the galaxies.
FLAGGED = 0.05
OUTSIDE = 0.01  # of the slices of r
DARK = 0.05  # without positive flux at the centre
UNSEEN = 0.5  # nothing stands out from the noise

# Pixels of cutouts, in units of their noise, and shares of them.
FAR_BELOW = 50.0  # below the sky: no noise does that
FAR_ABOVE = 1000.0  # above the sky, if as many pixels as PLATEAU have one value
PLATEAU = 10
SKY = 1.0
ZERO = 0.05
NEGATIVE = 0.01  # at least, where the sky is subtracted

# Photometry, in mag, and positions, in pixels.
OFFSET = 0.5  # between cutouts and table
COLOUR = -0.1  # of the bluer less the redder band
BRIGHT, FAINT = 8.0, 28.0  # a median galaxy, in the band that sets the aperture
CORRELATION = 0.5  # of ranks in cutouts and table
OFF_CENTRE = 2.0
ZERO_POINTS = {"microjansky": 23.9, "nanojansky": 31.4, "jansky": 8.9}  # AB magnitude of one such unit
