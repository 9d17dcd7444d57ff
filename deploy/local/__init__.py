"""Everything that runs all parts on one machine."""
