"""The training step as data: recorded once on preallocated buffers, and replayed for every batch."""
