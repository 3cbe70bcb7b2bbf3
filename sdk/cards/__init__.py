"""Cards of the models that have a name."""

__all__: list[str] = []
