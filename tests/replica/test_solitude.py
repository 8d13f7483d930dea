"""Where others may write to the server, pushes fly on a guess, and land as the log says if it was wrong."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from gradledger_server.entries import Delete
from gradledger_server.errors import ModelNotFound
from gradledger_server.replica import Answer, Hot
from gradledger_server.replica.solitude import FEWEST, MOST, Solitude
from gradledger_server.wire.records import to_record
from tests.replica.sky import SGD, Ear, Sky, Trust, down, fly
from tests.replica.world import state_digest


def solitude() -> tuple[Solitude, SimpleNamespace]:
    """With the playback that it listens to."""
    playback = SimpleNamespace(heard=3, unsaved_entries=0)
    return Solitude(playback), playback  # type: ignore[arg-type]


def pushes_until_likely(guess: Solitude) -> int:
    count = 0
    while not guess.likely:
        guess.note()
        count += 1
    return count


def test_it_takes_some_pushes_to_be_believed() -> None:
    guess, _ = solitude()
    assert pushes_until_likely(guess) == FEWEST


def test_whoever_is_heard_in_between_ends_it() -> None:
    guess, playback = solitude()
    guess.note(FEWEST)
    playback.heard += 1
    assert not guess.likely
    guess.note()
    assert pushes_until_likely(guess) == FEWEST


def test_it_takes_half_as_many_as_there_would_be_entries_to_play() -> None:
    guess, playback = solitude()
    playback.unsaved_entries = 100 * FEWEST
    assert pushes_until_likely(guess) == 50 * FEWEST


def test_each_time_it_was_wrong_it_takes_twice_as_many_up_to_a_bound() -> None:
    guess, _ = solitude()
    needed = []
    for _ in range(12):
        guess.note()
        for _ in range(3):  # as many as were in the air
            guess.wrong()
        assert not guess.likely
        needed.append(pushes_until_likely(guess))
    assert needed[:3] == [2 * FEWEST, 4 * FEWEST, 8 * FEWEST]
    assert needed[-1] == MOST


def test_what_was_wrong_is_forgotten_after_a_while() -> None:
    guess, _ = solitude()
    for _ in range(2):
        guess.note()
        guess.wrong()
    for _ in range(2):
        guess.note(8 * FEWEST)
    guess.wrong()
    assert pushes_until_likely(guess) == 4 * FEWEST, "it would have been eight times as many"


def test_it_is_forgotten_by_and_by() -> None:
    guess, _ = solitude()
    for _ in range(4):
        guess.note()
        guess.wrong()
    for _ in range(4 * 16 * FEWEST + 10):
        guess.note()
    guess.wrong()
    assert pushes_until_likely(guess) == 16 * FEWEST, "a half of it, and that doubled"


async def alone_for(sky: Sky, pushes: int) -> None:
    """So many by the ordinary way, in which nothing flies."""
    head = sky.store.head(sky.hot.epoch)
    assert head is not None
    first = head.offset - 1  # behind its creation
    for number in range(first, first + pushes):
        assert not sky.mailbox.hastens
        assert (await sky.push(f"w{number}", 1)).receipt.step == number + 1


@pytest.mark.parametrize("flying", [1, 3])
def test_pushes_fly_as_long_as_nobody_else_does(flying: int) -> None:
    async def story(sky: Sky) -> None:
        sky.mailbox._quick._solitude = Solitude(sky.hot.playback)
        await sky.mailbox.look()
        await alone_for(sky, FEWEST)
        assert sky.mailbox.hastens
        assert sky.mailbox.latest is None, "who pulls still asks"
        heard = [sky.hasten(f"f{number}", 1) for number in range(flying)]
        for _ in heard:
            sky.log.say()
        assert [a.receipt.step for a in await down(*heard) if isinstance(a, Answer)] == list(
            range(FEWEST + 1, FEWEST + 1 + flying)
        )
        assert sky.mailbox.hastens

        sky.elsewhere()
        heard = [sky.hasten(f"g{number}", 1) for number in range(flying)]
        for _ in heard:
            sky.log.say()
        first = FEWEST + flying + 2  # behind the other's
        assert [a.receipt.step for a in await down(*heard) if isinstance(a, Answer)] == list(
            range(first, first + flying)
        )
        assert sky.sum == sum(sky.logged()) == first + flying - 1
        assert state_digest(sky.hot.model) == sky.digest_again()
        assert not sky.mailbox.hasten(sky.draft("h", 1), Ear(unheard))
        await alone_for(sky, 2 * FEWEST + 1)  # of the first it is not sure yet
        assert sky.mailbox.hastens and sky.free

        for number in range(6 * FEWEST):  # so long that what was wrong is forgotten
            heard = [sky.hasten(f"i{number}", 1)]
            sky.log.say()
            await down(*heard)
        await sky.mailbox.run(Hot.save)  # there is little to play again
        sky.elsewhere()
        heard = [sky.hasten("j", 1)]
        sky.log.say()
        await down(*heard)
        await alone_for(sky, 2 * FEWEST + 1)
        assert sky.mailbox.hastens

    def unheard(answer: object) -> None:
        raise AssertionError(f"told {answer} of a push that was not taken")

    fly(story, shared=True, ready=False)


@pytest.mark.parametrize("shared", [False, True])
def test_a_model_with_a_table_does_not_fly_on_a_guess(*, shared: bool) -> None:
    """It would be long to load anew. Who has the server alone need not guess."""

    async def story(sky: Sky) -> None:
        table = {"t": {"rows": "lazy", "init": {"name": "zeros"}}}
        sky.world.create("rows", {"t": (10, 2)}, None, tables=table, optimizer=SGD)
        mailbox = type(sky.mailbox)(sky.world.hot("rows"), sky.log, sky.threads)
        mailbox._quick._solitude = Trust(mailbox.hot.playback)
        await mailbox.look()
        assert mailbox.hastens != shared

    fly(story, shared=shared)


def test_nobody_hears_of_a_step_that_was_only_foreseen() -> None:
    """Somebody else deletes the model, and the push that is in the air comes down nowhere."""

    async def story(sky: Sky) -> None:
        begun = sky.hot.news(None, 10).until
        assert sky.store.delete("m", sky.hot.epoch, to_record(Delete(0)))
        heard = sky.hasten("a", 1)
        sky.log.say()
        assert isinstance((await down(heard))[0], ModelNotFound)
        with pytest.raises(ModelNotFound):
            sky.hot.news(begun, 10)

    fly(story, shared=True)
