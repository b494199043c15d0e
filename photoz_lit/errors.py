"""Errors that a user can mend: each message says what is wrong, where, and what to do."""


class PhotozError(Exception):
    """A problem with the input or the settings; printed without a traceback."""

    exit_code = 1


class ConfigError(PhotozError):
    """Settings that do not exist, have the wrong type or cannot work together."""

    exit_code = 2


class DataError(PhotozError):
    """Tables, cutouts or files that cannot be used as they are."""
