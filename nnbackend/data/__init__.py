"""From a user's data to rows on a device: arrays, files and streams, batches, and the order of the rows."""
