"""Keys by the API of AWS KMS: as much of it as symmetric keys need."""
