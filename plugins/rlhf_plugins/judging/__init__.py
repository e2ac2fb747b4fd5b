"""A language model as the judge of two answers: how it is asked, and how its opinion is read."""
