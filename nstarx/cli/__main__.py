"""`python -m nstarx.cli` is `nstarx`."""

from nstarx.cli import main

main()
