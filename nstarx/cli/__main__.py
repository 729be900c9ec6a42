"""`python -m nstarx.cli` is `nstarx`."""

from nstarx.cli.app import main

main()
