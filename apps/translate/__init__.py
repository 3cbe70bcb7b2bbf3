"""Translation."""
__all__: list[str] = []
