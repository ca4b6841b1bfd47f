"""The test seam of the lease: every rule can be switched off, to show that a schedule notices its absence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutations:
    """Each flag switches one rule of the lease off. All are false in the product."""

    time_from_reply: bool = False
    """Validity counts from the answer to a round, not from before it was asked."""
    time_from_win: bool = False
    """Validity counts from the news that a swap was won, not from before it was sent."""
    no_margin: bool = False
    """A contender waits the bare ttl, not stretched by the drift of two clocks."""
    majority: bool = False
    """A majority of the electorate proves the lease, not all of it."""
    round_of_one_electorate: bool = False
    """While an own swap is open, a round proves the lease by the electorate of the old record alone."""
    no_bench_bound: bool = False
    """Rounds prolong the lease although benched machines, whom nobody asks, wait only ``bench_ttl``."""
    deadline_of_one_record: bool = False
    """While an own swap is open, the bound of the old record alone holds."""
    act_unsupported: bool = False
    """A holder whose time has run out goes on."""
    resume_without_read: bool = False
    """A lapsed holder goes on after a whole round, without having seen its record in the register."""
    resume_without_round: bool = False
    """A lapsed holder goes on by promises given before it lapsed."""
    act_after_ceased: bool = False
    """A machine acts on a version after it gave it up by release, token or closing."""
    adopt_released: bool = False
    """An own swap to a released or closed record is adopted like any other."""
    adopt_any_incarnation: bool = False
    """A record of an earlier start of this machine is taken for its own."""
    trust_earlier_incarnation: bool = False
    """After a restart the machine goes on acting on the record it had."""
    lone_acts_without_swap: bool = False
    """A rebooted lone holder acts on its old record instead of winning ``epoch + 1`` first."""
    ignore_newer_register: bool = False
    """A record newer than the own one is neither adopted nor does it stop the holder."""
    compare_read_with_later: bool = False
    """A read is compared with what was learned after it began."""
    alarm_at_first_read: bool = False
    """One read below what is known is evidence, although a hub's mirror may lag."""
    ignore_rewind: bool = False
    """A register below what is known is no evidence."""
    trust_any_successor: bool = False
    """A successor that does not name the record before it is no evidence."""
    ignore_twins: bool = False
    """Two records of one epoch with different holders are no evidence."""
    ignore_second_force: bool = False
    """Two forces of one generation are no evidence."""
    act_on_evidence: bool = False
    """Evidence of a split brain stops nobody."""
    contend_on_evidence: bool = False
    """Who stopped for a split brain contends for the lease."""
    evidence_ends_early: bool = False
    """Evidence of a split brain is forgotten with any newer record, not only with a later generation."""
    heal_below_other_line: bool = False
    """A healed or forced generation is above the own line only, not above every line that was seen."""
    forget_newest: bool = False
    """The highest ``(epoch, serial)`` seen is not stored."""
    first_sight_kept: bool = False
    """A contender counts from when it saw an older version, not this one."""
    promise_while_swap_open: bool = False
    promise_for_older: bool = False
    """A machine promises for a version although it knows a newer one."""
    promise_not_waited_out: bool = False
    """A contender counts from its first sight of the version alone."""
    waits_survive_boot: bool = False
    """After a restart no wait is begun anew."""
    collect_when_unable: bool = False
    """A holder goes on collecting promises that cannot make it valid."""
    benched_waits_short: bool = False
    benched_takes_release: bool = False
    release_not_taken: bool = False
    """A released lease is waited for like any other."""
    outsider_contends: bool = False
    """A machine that is in neither list contends like an elector."""
    token_for_any_version: bool = False
    """A yield token is used for a later version than the one it was signed for."""
    token_for_benched: bool = False
    token_from_anybody: bool = False
    """A yield token is used that the holder did not sign."""
    handoff_benches_holder: bool = False
    """A planned handoff benches the former holder like a failover."""
    bench_into_electorate: bool = False
    """A takeover puts the benched machines into the new electorate."""
    former_holder_stays: bool = False
    """A failover keeps the former holder in the electorate."""
    bench_not_incomplete: bool = False
    """A takeover from the bench claims to have every row."""
    ack_by_one_electorate: bool = False
    forget_unknown: bool = False
    """A swap whose reply was lost is forgotten instead of being sent again."""
    reopen_closed: bool = False
    """An embedded holder that closed its register opens it again by itself."""
    decline_not_stored: bool = False
    """A machine that declined a closing opens it when it comes again."""
    reopen_one_epoch_up: bool = False
    """After a decline the closer goes on at ``epoch + 1``, which the declined closing could still become."""
    open_unnamed: bool = False
    """A machine opens its register from a closing that names another successor."""
    open_from_bench: bool = False
    """A machine opens its register from a closing in which it is benched."""
    open_older_closing: bool = False
    """A machine opens its register from a closing although it knows a newer record."""
    closing_sent_once: bool = False
    """A closing that nobody confirmed is not sent again."""
    ask_nobody_after_boot: bool = False
    """An embedded holder or closer that restarted goes on without asking the others for anything newer."""
    force_one_epoch_up: bool = False
    """A forced takeover begins the next epoch, not a new generation."""
    moved_back_is_rewound: bool = False
    """A register to which the lease moves back is judged by the record that it still shows."""
    old_hub_is_news: bool = False
    """What another register than the present one holds is compared with what is known."""
    move_without_wait: bool = False
    """A member opens the new hub's register at once when it sees that the old one was closed for it."""
    lone_reads_nothing: bool = False
    """A holder whose lease does not run out does not look at the register any more."""
    bench_nobody: bool = False
    """Who misses promises stays in the electorate."""
    take_back_unready: bool = False
    """Who is benched is taken back before it has caught up."""
    admit_into_electorate: bool = False
    """A joiner enters the electorate at once."""
    no_checkpoint: bool = False
    """While somebody is benched the holder does not renew by a swap."""


NO_MUTATIONS = Mutations()
