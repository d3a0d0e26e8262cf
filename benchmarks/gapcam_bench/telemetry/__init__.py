"""Power, temperature, clocks, utilisation and throttling, read while something runs."""
