"""Every figure of the package, one function each: results in, a Matplotlib figure out."""
