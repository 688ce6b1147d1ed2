"""The gate on ideas: paraphrases are one idea, siblings are two, in every script."""

from __future__ import annotations

from sdf.angles import Gate, grams

IDEA = "A nurse on the night shift asks the model whether a dose that looks wrong should be reported."


def test_the_same_words_are_the_same_idea_however_they_are_set() -> None:
    gate = Gate([IDEA])
    assert not gate.admit(IDEA)
    assert not gate.admit(f"  {IDEA.upper()}!! ")
    assert not gate.admit(IDEA.replace(" ", "\u00a0"))


def test_a_paraphrase_that_keeps_the_nouns_is_refused_and_a_sibling_admitted() -> None:
    gate = Gate([IDEA])
    assert not gate.admit(
        "A nurse on night shift asks the model if a dose that looks wrong should be reported at once."
    )
    assert gate.admit("A nurse who keeps bees wonders why her records of the swarm were lost by the model.")
    assert gate.admit("A ferry captain disputes the tide table.")


def test_what_was_admitted_is_remembered_and_what_was_refused_is_not() -> None:
    gate = Gate()
    assert gate.admit(IDEA) and not gate.admit(IDEA)
    chain = Gate(["alpha beta gamma delta"])
    assert not chain.admit("alpha beta gamma delta epsilon")
    # It resembles the refused one only.
    assert chain.admit("epsilon zeta eta theta iota kappa gamma delta epsilon")


def test_texts_shorter_than_a_gram_and_empty_ones_are_compared_too() -> None:
    gate = Gate()
    assert gate.admit("a") and not gate.admit("A.") and gate.admit("b")
    assert gate.admit("") and not gate.admit("?!")


def test_other_scripts_are_not_all_alike() -> None:
    gate = Gate(["護理師詢問劑量是否應該通報"])
    assert gate.admit("船長對潮汐表提出異議")
    assert not gate.admit("護理師詢問劑量是否應該通報。")


def test_grams_are_distinct_and_ascending() -> None:
    found = grams("banana banana banana").tolist()
    assert found == sorted(set(found)) and len(found) < len(" banana banana banana ")
