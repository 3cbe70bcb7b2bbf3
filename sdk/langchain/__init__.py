"""LangChain's classes over Sensorium's models."""

from .chat import ChatSensorium
from .embeddings import SensoriumEmbeddings

__all__ = ["ChatSensorium", "SensoriumEmbeddings"]
