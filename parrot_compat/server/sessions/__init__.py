"""Sessions as requests meet them: what a request asks of one, which it is, and where its calls are made there.

`object_schema` and `asking` read what was said, `directory` finds the session, `references` lead to what is in it, and
in `rooms` calls begin. It knows nothing of endpoints, messages or answers: every API that is served stands on it.

The invariant: whatever API a request came by, the same words lead to the same session and to the same receipt.
"""
