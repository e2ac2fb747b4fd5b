"""Stages of one's own that come with the house."""
