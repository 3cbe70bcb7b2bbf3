"""LangChain's classes over Sensorium's models."""

from .embeddings import SensoriumEmbeddings

__all__ = ["SensoriumEmbeddings"]
