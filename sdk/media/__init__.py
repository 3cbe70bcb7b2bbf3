"""Files of strangers to decoded media, within bounds."""

__all__: list[str] = []
