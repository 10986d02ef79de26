"""The asv benchmark suites, which compare all backends."""
