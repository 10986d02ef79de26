"""From whatever a user has to rows on a device: arrays, streams, targets, weights, and the order of the rows."""
