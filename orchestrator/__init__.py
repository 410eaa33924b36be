"""EC2 on your own Linux box, with real virtual machines."""

__version__ = "0.1.0"
