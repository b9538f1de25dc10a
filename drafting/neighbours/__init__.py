"""Neighbour models: for each item the items that follow from it, made in closed form from interactions alone (item-kNN, EASE)."""
