"""Video: networks and preprocessing."""

__all__: list[str] = []
