"""How fast the gateway is, beside its peers and beside itself: see README.md."""
