"""Every number that judges a photometric redshift, as pure functions (Lin et al. 2022, sections 3.4 and 5).

Throughout, `dz = (photo_z - spec_z) / (1 + spec_z)`; with `relative=False`, for other quantities,
`dz = photo_z - spec_z`, and spec_z stands for the true value, photo_z for the estimate. Undefined numbers (no
galaxies, one bin for a straight line) are NaN, never an error or a warning.
"""

from photoz_lit.metrics.pdf import OF_PDF as OF_PDF
from photoz_lit.metrics.pdf import cde_loss as cde_loss
from photoz_lit.metrics.pdf import central as central
from photoz_lit.metrics.pdf import covered as covered
from photoz_lit.metrics.pdf import crps as crps
from photoz_lit.metrics.pdf import cumulative as cumulative
from photoz_lit.metrics.pdf import interval as interval
from photoz_lit.metrics.pdf import mean as mean
from photoz_lit.metrics.pdf import median as median
from photoz_lit.metrics.pdf import mode as mode
from photoz_lit.metrics.pdf import pdf_scores as pdf_scores
from photoz_lit.metrics.pdf import pit as pit
from photoz_lit.metrics.pdf import pit_cvm as pit_cvm
from photoz_lit.metrics.pdf import pit_ks as pit_ks
from photoz_lit.metrics.pdf import trainz as trainz
from photoz_lit.metrics.point import bias as bias
from photoz_lit.metrics.point import outlier_fraction as outlier_fraction
from photoz_lit.metrics.point import residual as residual
from photoz_lit.metrics.point import sigma_mad as sigma_mad
from photoz_lit.metrics.point import standard_error as standard_error
from photoz_lit.metrics.point import total_variation as total_variation
from photoz_lit.metrics.point import wasserstein as wasserstein
from photoz_lit.metrics.residuals import WIDE_BINS as WIDE_BINS
from photoz_lit.metrics.residuals import BinnedResiduals as BinnedResiduals
from photoz_lit.metrics.residuals import LineFit as LineFit
from photoz_lit.metrics.residuals import bulk_bias as bulk_bias
from photoz_lit.metrics.residuals import fit_line as fit_line
from photoz_lit.metrics.residuals import plain_slope as plain_slope
from photoz_lit.metrics.residuals import residuals_by_photo_z as residuals_by_photo_z
from photoz_lit.metrics.residuals import residuals_by_spec_z as residuals_by_spec_z
from photoz_lit.metrics.residuals import simulated_residuals as simulated_residuals
from photoz_lit.metrics.residuals import total_variation_floor as total_variation_floor
from photoz_lit.metrics.residuals import wide as wide
from photoz_lit.metrics.tables import MIN_COUNT as MIN_COUNT
from photoz_lit.metrics.tables import POINTS as POINTS
from photoz_lit.metrics.tables import by_group as by_group
from photoz_lit.metrics.tables import by_magnitude as by_magnitude
from photoz_lit.metrics.tables import by_redshift as by_redshift
from photoz_lit.metrics.tables import evaluate as evaluate
