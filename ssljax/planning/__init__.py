"""What a run needs and costs on hardware that is not here: topologies, compiled programs read, rooflines."""
