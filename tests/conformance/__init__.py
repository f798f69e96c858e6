"""Judges: suites and clients that nobody here wrote, run against our server.

    scripts/conformance                      # all of them
    scripts/conformance sdk langchain        # these
    scripts/conformance schemathesis --openai-document openapi.yaml

The foreign suites are fetched for the run and never copied. What a judge finds and we do not mend is in
`exceptions.toml`, with its reason; a finding that is not there, and an exception that no longer happens, is a failure.
"""
