"""What labelling programs call what was said: shared by those that ask there and those that read their exports."""
