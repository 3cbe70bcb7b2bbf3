"""The cache that a decoder's options ask for."""

from __future__ import annotations

from ..encoders.errors import UnsupportedInputError
from .cache import KeyValueCache
from .cache_options import CacheOptions
from .config import DecoderConfig
from .context_parallel import current
from .offloaded_cache import OffloadedCache
from .quantized_cache import QuantizedCache
from .rolling_cache import RollingCache
from .shared_cache import SharedCache

__all__ = ["make_cache"]


def make_cache(config: DecoderConfig, rows: int, options: CacheOptions) -> KeyValueCache:
    """An empty cache for `rows` rows; under `parallel` for one, which the ranks share.

    Raises:
        InvalidInputError: more than one row where there can be only one, or a window too large for the model.
        UnsupportedInputError: anything but an exact cache in memory under `parallel`.
        EngineError: no file for old positions can be made.
    """
    ranks = current()
    if ranks is not None:
        if options != CacheOptions():
            raise UnsupportedInputError(
                "The ranks of a group share exact caches in memory.", given=options, expected=CacheOptions()
            )
        cache: KeyValueCache = SharedCache(config, ranks.peers)
    elif options.rolling is not None:
        return RollingCache(config, options.rolling, rows)
    elif options.offload is not None:
        cache = OffloadedCache(config, options.offload)
    elif options.precision != "exact":
        cache = QuantizedCache(config, options.precision)
    else:
        return KeyValueCache(config, rows)
    cache.select(range(rows))
    return cache
