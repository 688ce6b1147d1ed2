"""The fold agrees with a plain reading of the design, in whatever order receipts arrive, and keeps its promises."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support import receipt

from sdf import assemble
from sdf.assemble import Cut, Fold, GenreTerms, Pair, Terms
from sdf.dedup import Index, jaccard, signatures
from sdf.records import Location, Receipt

THRESHOLD = 0.8
HOPELESS = 6
CONFIGS = ("documents", "chats")


def pool() -> list[str]:
    """Texts of which 0-2 resemble each other and 3-4 do; 0 and 2 are below the threshold."""
    numbers = random.Random(0)
    lines = [" ".join(f"w{numbers.randrange(10**6)}" for _ in range(200)) for _ in range(4)]
    first = lines[0].split()
    near = " ".join(first[:190] + ["changed"] * 10)
    far = " ".join(first[:150] + lines[3].split()[:50])
    return [lines[0], near, far, lines[1], lines[1] + " and more", lines[2]]


TEXTS = pool()
SIGNED = [row.astype("<u4").tobytes() for row in signatures(TEXTS)]
JACCARD = {(a, b): jaccard(TEXTS[a], TEXTS[b]) for a in range(len(TEXTS)) for b in range(len(TEXTS))}


def test_the_pool_holds_what_the_tests_need() -> None:
    assert JACCARD[0, 1] >= THRESHOLD > JACCARD[0, 2] > 0.5 and JACCARD[3, 4] >= THRESHOLD > JACCARD[0, 3]
    for left, right in ((0, 1), (3, 4)):
        index = Index(THRESHOLD)
        index.add(0, signatures(TEXTS)[left])
        assert index.candidates(signatures(TEXTS)[right]) == [0]


@pytest.fixture(autouse=True, scope="module")
def soon_hopeless() -> object:
    """A short streak, so that small examples meet it; the number itself is a unit test's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(assemble, "HOPELESS", HOPELESS)
        yield


@dataclass(frozen=True)
class World:
    """Sequences, and how every brief of each ends; `text` says which text of the pool a location holds."""

    sequences: tuple[GenreTerms, ...]
    receipts: dict[str, list[Receipt]]
    excluded: frozenset[str]
    text: dict[Location, int] = field(default_factory=dict)

    def terms(self, target: int, shard_tokens: int = 10**9) -> Terms:
        return Terms(
            self.sequences,
            target,
            shard_tokens,
            THRESHOLD,
            lambda genre, index: "validation" if index % 5 == 3 else "train",
            (lambda each: each.brief not in self.excluded) if self.excluded else None,
        )

    @property
    def all(self) -> list[Receipt]:
        return [each for receipts in self.receipts.values() for each in receipts]


ends = st.tuples(
    st.integers(1, 300),
    st.sampled_from([None, None, None, None, "refused", "link"]),
    st.integers(0, len(TEXTS) - 1),
    st.sampled_from([False, False, False, False, True]),
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    sequences: list[GenreTerms] = []
    world = World((), {}, frozenset())
    excluded: set[str] = set()
    has_exclusions = draw(st.booleans())
    for number in range(draw(st.integers(1, 3))):
        name, n_twins = f"g{number}", draw(st.sampled_from([1, 1, 2, 3]))
        settled = draw(st.lists(ends, max_size=24))
        settled = settled[: len(settled) // n_twins * n_twins]
        is_finite = draw(st.booleans())
        compared = draw(st.sampled_from([True, True, False]))
        share = draw(st.sampled_from([0.5, 1.0, 1.0, 2.0, 3.0]))
        config = draw(st.sampled_from(CONFIGS))
        sequences.append(GenreTerms(name, share, config, compared, n_twins, len(settled) if is_finite else None))
        world.receipts[name] = []
        for index, (n_tokens, reason, text, is_excluded) in enumerate(settled):
            each = receipt(name, index, n_tokens, reason, SIGNED[text] if compared else b"")
            world.receipts[name].append(each)
            world.text[each.location] = text
            if is_excluded and has_exclusions:
                excluded.add(each.brief)
    return replace(world, sequences=tuple(sequences), excluded=frozenset(excluded))


def compare(world: World, pairs: Sequence[Pair]) -> dict[Pair, float]:
    return {pair: JACCARD[world.text[pair[0]], world.text[pair[1]]] for pair in pairs}


def folded(world: World, terms: Terms, arrivals: Sequence[Receipt] | None = None, *, step: int = 10**9) -> Fold:
    fold = Fold(terms)
    pending = list(world.all if arrivals is None else arrivals)
    while pending:
        for each in pending[:step]:
            fold.offer(each)
        pending = pending[step:]
        while pairs := fold.advance():
            fold.learn(compare(world, pairs))
    fold.advance()
    return fold


def cuts_of(fold: Fold) -> list[Cut]:
    return [*fold.take_full(), *fold.short()]


def outcome(fold: Fold) -> tuple[object, ...]:
    tallies = [(t.next, t.n_tokens, t.n_documents, dict(t.rejected), t.gone) for t in fold.tallies.values()]
    return cuts_of(fold), fold.rejections, tallies, fold.n_tokens


def order_of(world: World, target: int) -> list[Receipt]:
    """Documents of every config in fold order: with shards of one document they are cut as they are accepted."""
    return [each for cut in folded(world, world.terms(target, 1)).take_full() for each in cut.receipts]


def plainly(world: World, target: int) -> tuple[list[str], list[tuple[str, str, str | None]], set[str]]:
    """The design's words as a loop: documents in fold order, rejections, genres that left."""
    n_tokens = dict.fromkeys(world.receipts, 0)
    place, streak = dict.fromkeys(world.receipts, 0), dict.fromkeys(world.receipts, 0)
    kept: list[tuple[GenreTerms, Receipt]] = []
    rejections: list[tuple[str, str, str | None]] = []
    gone: set[str] = set()
    while sum(n_tokens.values()) < target:
        active = [each for each in world.sequences if each.genre not in gone]
        if not active:
            break
        turn = min(active, key=lambda each: n_tokens[each.genre] / each.share)
        name = turn.genre
        unit = world.receipts[name][place[name] : place[name] + turn.n_twins]
        if turn.n_briefs is not None and place[name] >= turn.n_briefs:
            gone.add(name)
            continue
        if len(unit) < turn.n_twins:
            break
        place[name] += turn.n_twins
        wanted = [each for each in unit if each.brief not in world.excluded]
        verdicts = [_verdict(world, turn, each, kept) for each in unit] if wanted else [None]
        if not any(verdicts):
            kept += [(turn, each) for each in wanted]
            n_tokens[name] += sum(each.n_tokens for each in wanted)
            streak[name] = 0 if wanted else streak[name]
            rejections += [(each.brief, "excluded", None) for each in unit if each not in wanted]
            continue
        verdicts = [verdict or ("twin", None) for verdict in verdicts]
        rejections += [(each.brief, *verdict) for each, verdict in zip(unit, verdicts, strict=True) if verdict]
        streak[name] += turn.n_twins
        if streak[name] >= HOPELESS:
            gone.add(name)
    return [each.brief for _, each in kept], rejections, gone


def _verdict(
    world: World, turn: GenreTerms, each: Receipt, kept: list[tuple[GenreTerms, Receipt]]
) -> tuple[str, str | None] | None:
    if each.reason is not None:
        return each.reason, None
    for other, document in kept:
        is_compared = turn.compared and other.compared and other.config == turn.config
        if is_compared and JACCARD[world.text[document.location], world.text[each.location]] >= THRESHOLD:
            return "duplicate", document.brief
    return None


targets = st.integers(1, 6_000)


@settings(deadline=None, max_examples=150)
@given(world=worlds(), target=targets)
def test_it_is_the_loop_that_the_design_describes(world: World, target: int) -> None:
    fold = folded(world, world.terms(target, 1))
    kept, rejections, gone = plainly(world, target)
    assert [each.brief for cut in fold.take_full() for each in cut.receipts] == kept
    assert [(each.brief, each.reason, each.of) for each in fold.rejections] == rejections
    assert {name for name, tally in fold.tallies.items() if tally.gone} == gone


@settings(deadline=None, max_examples=100)
@given(world=worlds(), target=targets, shard=st.integers(1, 900), step=st.integers(1, 9), random=st.randoms())
def test_order_and_repetition_of_receipts_never_matter(
    world: World, target: int, shard: int, step: int, random: random.Random
) -> None:
    arrivals = [each for each in world.all for _ in range(random.choice((1, 1, 2)))]
    random.shuffle(arrivals)
    # One that comes again later may tell another story: the first counts.
    arrivals += [replace(each, n_tokens=each.n_tokens + 1, reason="late") for each in world.all]
    terms = world.terms(target, shard)
    assert outcome(folded(world, terms, arrivals, step=step)) == outcome(folded(world, terms))


@settings(deadline=None, max_examples=100)
@given(world=worlds(), target=targets, less=st.integers(1, 6_000), shard=st.integers(1, 900))
def test_a_smaller_corpus_is_a_prefix_of_a_larger_one(world: World, target: int, less: int, shard: int) -> None:
    assume(less < target)
    small, large = order_of(world, less), order_of(world, target)
    assert large[: len(small)] == small
    before, after = folded(world, world.terms(less, shard)), folded(world, world.terms(target, shard))
    assert after.rejections[: len(before.rejections)] == before.rejections
    full = {(cut.config, cut.split, cut.number): cut for cut in after.take_full()}
    assert all(full[cut.config, cut.split, cut.number] == cut for cut in before.take_full())


@settings(deadline=None, max_examples=100)
@given(world=worlds(), target=targets)
def test_every_prefix_holds_the_mix_to_within_a_document_and_its_twins(world: World, target: int) -> None:
    endless = replace(world, sequences=tuple(replace(each, n_briefs=None) for each in world.sequences))
    terms = {each.genre: each for each in endless.sequences}
    fold = folded(endless, endless.terms(target, 1))
    gone = {name for name, tally in fold.tallies.items() if tally.gone}
    tokens = dict.fromkeys(set(terms) - gone, 0)
    largest = {
        name: max((sum(e.n_tokens for e in unit) for unit in units(endless, name)), default=0) for name in tokens
    }
    for cut in fold.take_full():
        for each in cut.receipts:
            if each.genre in tokens:
                tokens[each.genre] += each.n_tokens
            for ahead in tokens:
                for behind in tokens:
                    lead = tokens[ahead] / terms[ahead].share - tokens[behind] / terms[behind].share
                    assert lead <= largest[ahead] / terms[ahead].share + 1e-9


def units(world: World, genre: str) -> list[list[Receipt]]:
    n_twins = next(each.n_twins for each in world.sequences if each.genre == genre)
    receipts = world.receipts[genre]
    return [receipts[start : start + n_twins] for start in range(0, len(receipts), n_twins)]


@settings(deadline=None, max_examples=100)
@given(world=worlds(), target=targets, shard=st.integers(1, 900))
def test_cutting_loses_and_doubles_nothing(world: World, target: int, shard: int) -> None:
    cuts = cuts_of(folded(world, world.terms(target, shard)))
    for config, split in {(cut.config, cut.split) for cut in cuts}:
        own = sorted((cut for cut in cuts if (cut.config, cut.split) == (config, split)), key=lambda cut: cut.number)
        assert [cut.number for cut in own] == list(range(len(own)))
        for cut in own[:-1]:
            assert cut.n_tokens >= shard > cut.n_tokens - cut.receipts[-1].n_tokens
    once = cuts_of(folded(world, world.terms(target)))
    for whole in once:
        own = [cut for cut in cuts if (cut.config, cut.split) == (whole.config, whole.split)]
        in_order = [each for cut in sorted(own, key=lambda cut: cut.number) for each in cut.receipts]
        assert in_order == list(whole.receipts)
    assert {(cut.config, cut.split) for cut in cuts} == {(cut.config, cut.split) for cut in once}


@settings(deadline=None, max_examples=100)
@given(world=worlds(), target=targets)
def test_every_brief_that_was_folded_is_a_document_or_a_rejection_once(world: World, target: int) -> None:
    fold = folded(world, world.terms(target))
    folded_briefs = [each.brief for name, tally in fold.tallies.items() for each in world.receipts[name][: tally.next]]
    kept = [each.brief for cut in cuts_of(fold) for each in cut.receipts]
    assert sorted(kept + [each.brief for each in fold.rejections]) == sorted(folded_briefs)
    for name, tally in fold.tallies.items():
        wanted = [[each for each in unit if each.brief not in world.excluded] for unit in units(world, name)]
        assert all(len({each.brief in kept for each in unit}) <= 1 for unit in wanted)
        assert tally.n_documents == sum(each.brief in kept for each in world.receipts[name])
