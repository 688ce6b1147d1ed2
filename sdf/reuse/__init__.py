"""Another corpus of the same answers: counted, folded again, matched, replayed."""
