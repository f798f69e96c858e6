"""Drawing: from the logits of a step's rows to one token each, and to what a row wants to know of its token.

It knows logits, and of a row how it asks to be drawn (`draw`); nothing of models, batches, sequences or grammars: a
form is the set of tokens that it allows (`token_bits`).

The invariant: what a row draws hangs on its own logits and its own draw, never on its neighbours.
"""
