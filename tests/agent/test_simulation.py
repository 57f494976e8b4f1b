"""The agent in random worlds: lost messages, kills at any step, reboots, clocks that step."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.agent.world import World

UIDS = st.sampled_from([f"u-{n}" for n in range(4)])


class Anything(RuleBasedStateMachine):
    """Whatever happens: once at most, never after its end, and at last what is wanted."""

    @initialize()
    def begin(self) -> None:
        self.world = World()
        self.retracted: set[str] = set()

    @rule(uid=UIDS, survives=st.booleans(), follow=st.booleans())
    def asked(self, uid: str, survives: bool, follow: bool) -> None:
        if uid not in self.retracted:  # whoever asks again takes a new uid
            self.world.ask(uid, survives=survives, follow=follow)

    @rule(uid=UIDS)
    def retracted_(self, uid: str) -> None:
        if any(each["uid"] == uid for each in self.world.desired):
            self.retracted.add(uid)
        self.world.retract(uid)

    @rule(uid=UIDS)
    def marked(self, uid: str) -> None:
        self.world.marked(uid)

    @rule(why=st.sampled_from(["", "", "a drill"]))
    def halted(self, why: str) -> None:
        self.world.halt(why)

    @rule(seconds=st.sampled_from([0.1, 1.0, 5.0, 30.0, 45.0, 700.0]),
          step=st.sampled_from([0.0, 0.0, 0.0, -3600.0, 30.0]))  # fmt: skip
    def time(self, seconds: float, step: float) -> None:
        self.world.passes(seconds, step)

    @rule(uid=UIDS)
    def target_ended(self, uid: str) -> None:
        self.world.target_ends(uid)

    @rule(reached=st.booleans())
    def network(self, reached: bool) -> None:
        self.world.reached = reached

    @rule(refusing=st.booleans())
    def guards(self, refusing: bool) -> None:
        self.world.refusing = refusing

    @rule()
    def killed(self) -> None:
        self.world.dies()

    @rule()
    def killed_while_others_go_on(self) -> None:
        """What works for it comes to its end without it."""
        for key in list(self.world.running):
            self.world.begins(key)
        self.world.dies()

    @rule()
    def rebooted(self) -> None:
        self.world.reboots()

    @rule()
    def started(self) -> None:
        self.world.starts()

    @rule()
    def heard(self) -> None:
        self.world.hears()

    @rule()
    def renewed(self) -> None:
        self.world.renews()

    @rule()
    def looked(self) -> None:
        self.world.looks()

    @rule()
    def written(self) -> None:
        self.world.writes()

    @rule()
    def decided(self) -> None:
        self.world.decides()

    @rule(data=st.data())
    def worked(self, data: st.DataObject) -> None:
        if self.world.running:
            key = data.draw(st.sampled_from(sorted(self.world.running)))
            self.world.works(key)
            self.world.decides()

    @invariant()
    def never_twice(self) -> None:
        injected = self.world.injected
        assert len(injected) == len(set(injected))
        followers = [uid for uid in injected if "." in uid]
        assert all(uid.partition(".")[0] in injected for uid in followers)

    @invariant()
    def nothing_beyond_the_lease(self) -> None:
        world = self.world
        for uid in world.journal:
            each = world.journal[uid]
            if each.open and each.boot == world.boot and world.leased[uid]:
                assert world.clock < world.lease_until

    def teardown(self) -> None:
        world = self.world
        world.settles()
        wanted = {each["uid"] for each in world.desired}
        assert world.open <= {each["uid"] for each in world.desired if not each.get("undo")}
        if world.server["spec"].get("halted"):
            assert not world.open
        assert not world.running
        for uid in wanted:
            entry = world.entry(uid)
            assert entry["stage"] in ("active", "ended", "refused"), entry
            assert (entry["stage"] == "active") == (uid in world.open)
            if entry["stage"] == "active":
                assert entry["effect"] == "effective"
        status = world.server["status"]
        assert status["observedGeneration"] == world.server["metadata"]["generation"]
        clean = next(each for each in status["conditions"] if each["type"] == "Clean")
        assert clean["status"] == "True"


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
