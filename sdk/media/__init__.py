"""Files of strangers to decoded media, within bounds."""

from .arrays import audio_from_array, image_from_object, video_from_frames
from .blocks import Access, from_block
from .decode import decode
from .limits import LIMITS, Isolation, Limits
from .parts import Audio, Image, MediaPart, Video
from .recognise import recognise
from .sampling import Sampling
from .sniff import Kind, Sniffed, sniff
from .source import Blob, FileSource, open_source

__all__ = [
    "LIMITS",
    "Access",
    "Audio",
    "Blob",
    "FileSource",
    "Image",
    "Isolation",
    "Kind",
    "Limits",
    "MediaPart",
    "Sampling",
    "Sniffed",
    "Video",
    "audio_from_array",
    "decode",
    "from_block",
    "image_from_object",
    "open_source",
    "recognise",
    "sniff",
    "video_from_frames",
]
