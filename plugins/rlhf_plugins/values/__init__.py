"""Written values: versioned lists of principles, each turned into checks that a program can carry out."""
