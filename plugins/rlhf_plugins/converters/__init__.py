"""Feedback of one kind in the words of another."""
