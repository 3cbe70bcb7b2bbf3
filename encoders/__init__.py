"""Encoders: pixels, samples, frames and text to features and tokens. The lowest layer."""
