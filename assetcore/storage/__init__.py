"""Storage: where do the bytes lie? The only door to fsspec and S3."""
