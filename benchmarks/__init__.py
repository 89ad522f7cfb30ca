"""Goal reaching, probes, cost landscapes, speed; the statistics and the reports they end in."""
