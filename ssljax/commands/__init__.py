"""One file a subcommand; each has `run(options)`."""
