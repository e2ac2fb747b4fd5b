"""Implicit feedback: counts of what people did with what they were shown, and what the counts say."""
