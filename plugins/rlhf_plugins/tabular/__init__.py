"""Rows of a table or a dataset, whatever their columns are called, as prompts, demonstrations and feedback."""
