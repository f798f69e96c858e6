"""Apps written for us: semantic functions, sessions and variables, over HTTP or in this process."""
