"""What a person runs: the command line and the apps."""

__all__: list[str] = []
