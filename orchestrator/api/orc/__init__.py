"""The service of our own: what EC2's API has no action for."""
