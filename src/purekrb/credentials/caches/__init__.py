"""Where credential caches are kept: one module for each type of cache name.

A module has the functions of `CacheType` (cache_types.py), and a row in the table `CACHE_TYPES`
there. The file format is in ccache.py, so that every type can use it.
"""
