"""Replaying recorded users: what a plan would cost on another machine."""
