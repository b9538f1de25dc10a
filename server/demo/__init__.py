"""The demo: MovieLens 100k, read from a package on the index, made into a catalog, a target and a history store, and served.

MovieLens 100k is for research use and may not be redistributed: neither it nor what is made from it leaves the user's cache.
"""
