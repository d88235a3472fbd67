"""The frozen prefix: what lies below the lowest trained layer is constant, so it is run once and kept."""
