"""Interactions of users with items: file formats, splits into train, validation and test, and training samples."""
