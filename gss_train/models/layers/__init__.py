"""Layers that know nothing of the network that they are in."""
