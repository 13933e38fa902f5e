"""REST under `/api/v1/`: what integrators, clinicians' scripts and support's tools ask. docs/api.md explains it.

One module a resource, each with what it looks like, how it is asked for and who may see it. What they share:
`problems` (errors), `authentication`, `asking` (parameters and bodies), `cursors`, `etags`, `throttles`, `views`.
"""
