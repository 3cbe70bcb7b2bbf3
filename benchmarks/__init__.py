"""Every published figure, as a command: ``python -m benchmarks.<name>`` from the project's folder."""
