"""Our own tests for foreign clients; run by `scripts/conformance`, in environments that have the client and not us."""
