"""Encoders: text, image, audio and video to features. This layer imports no other."""

__all__: list[str] = []
