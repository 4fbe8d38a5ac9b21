"""The one exception that bad data raises."""


class DataError(ValueError):
    """A dataset is missing, unreadable or contradicts itself; the message names the file and the remedy."""
