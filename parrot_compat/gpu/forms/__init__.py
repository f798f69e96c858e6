"""Forms: what an answer is held to token by token, from what was asked for to the tokens that may come next.

    desk        which command waits for a form, and who compiles it
    grammar     a compiled form: which tokens may come next
    closing     how a text that was begun comes to an end
    source      an output format as the library reads it
    vocabulary  the tokenizer as the library reads it
    loosening   what is left out of a schema that need not be held to
    sizes       how much that would be to look at, told before the library reads it

It knows formats, tokens and llguidance; nothing of logits, steps or pages. Only `grammar` and `source` import
llguidance, and they are imported when a form is asked for: an engine runs without the library.

The invariant: what was asked for is measured before the library reads it, and what the library then takes has a limit.
"""
