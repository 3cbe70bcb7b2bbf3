"""How the default model's projectors and adapter are trained, from data to weights (docs/nano.md)."""

__all__: list[str] = []
