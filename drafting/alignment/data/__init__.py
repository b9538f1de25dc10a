"""Interactions of users with items: their files, the split by time, and the samples made from them."""
