"""Real servers and clients while processes die and hang, connections are cut, disks are full: ``make chaos``."""
