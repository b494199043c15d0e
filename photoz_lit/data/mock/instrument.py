"""The telescope, camera and sky of the simulated survey: SDSS imaging, bands u g r i z."""

import numpy as np

from photoz_lit.data.dust import EXTINCTION_PER_EBV

ZERO_POINT = 22.5  # mag of one nanomaggy, AB
PIXEL = 0.396  # arcsec
WAVELENGTH = np.array([3551.0, 4686.0, 6166.0, 7480.0, 8932.0])  # angstrom, effective
BAND_WIDTH = np.array(
    [599.0, 1379.0, 1382.0, 1535.0, 1370.0]
)  # angstrom (Fukugita et al. 1996, AJ 111, 1748)
EXTINCTION = np.array([EXTINCTION_PER_EBV[band] for band in "ugriz"])
# Scatter of zero points between fields, mag (Padmanabhan et al. 2008, ApJ 674, 1217).
CALIBRATION = np.array([0.02, 0.01, 0.01, 0.01, 0.01])

# Typical of the survey's runs and camera columns (as in the headers and data model of its `frame` files).
GAIN = np.array([1.60, 3.90, 4.72, 4.86, 4.76])  # electrons per count
DARK_VARIANCE = np.array([6.5, 1.6, 1.15, 6.0, 1.10])  # counts^2 per pixel, read noise included
NANOMAGGIES_PER_COUNT = np.array([0.0100, 0.0036, 0.0050, 0.0065, 0.0355])
SKY = np.array([1.15, 1.80, 4.1, 6.8, 20.0])  # nanomaggies per square arcsec
SEEING = np.array([1.55, 1.42, 1.32, 1.28, 1.20])  # arcsec, full width at half maximum
PSF_ELLIPTICITY = 0.09  # 1 - axis ratio, median; mostly along the scan
# What subtraction of the sky leaves on scales of a stamp, of the noise of a pixel: in one band, and in all
# (median; measured on two real fields).
SKY_RESIDUAL, SKY_LIFT = 0.03, np.array([0.01, 0.03, 0.04, 0.04, 0.04])

# The point spread function is two Gaussians, with share and widths as fitted to those of SDSS.
WIDE_SHARE, WIDE_OVER_NARROW = 0.34, 5.5**0.5

DEVAUCOULEURS = 7.66925  # half-light constant of the r^(1/4) law
EXPONENTIAL = 1.67835  # half-light radius of an exponential disc in scale lengths
