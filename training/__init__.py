"""Training: projectors, SFT, adapters, preference, distillation, evaluation. Nothing yet."""

__all__: list[str] = []
