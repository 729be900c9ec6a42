"""The other servers that serve iris, for comparison.

Each imports its own framework, `benchmarks.servers.iris` and nothing else, because those of the peers run in
environments without the rest of this project.
"""
