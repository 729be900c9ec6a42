"""NStarX Deployments: put model versions live behind a gateway that keeps a bad release from hurting anybody."""

__version__ = "0.1.0"
