//! When what cannot be answered is given up.

use ringfence::request::{Action, Commands};
use ringfence::resp::encode;
use ringfence::sequencer::Effect;

use crate::pool::{Pool, START};

/// What a command that is taken for a script is asked as.
const SCRIPT: u64 = 99;

impl Pool {
    /// A script, for one node. The node's model knows none; what counts is that it is said to be one.
    fn script(&mut self, node: u16) {
        let frame = encode::command_frame(&[b"PING"]);
        let script = Commands {
            scripts: Some([].into()),
            ..Commands::one(frame)
        };
        self.order(Action::OnNode(node, script), SCRIPT);
    }

    fn tick(&mut self, now_ms: u64) {
        self.sequencer.set_clock(now_ms, now_ms);
        for node in 0..3 {
            if self.sequencer.executes_script(node, false) {
                self.sequencer.excuse(node);
            }
        }
        self.sequencer.tick();
        self.effects.append(self.sequencer.effects());
    }
}

/// A node executes short scripts all the time: that excuses nobody. A write that only one node has is given up at its time, and with
/// it the hold of a command of several steps.
#[test]
fn short_scripts_keep_nothing_alive() {
    let mut pool = Pool::new(1 << 20);
    for id in 0..3 {
        pool.connect(id, Some(START));
    }
    pool.tick(10);
    pool.push(1);
    let wire = pool.batch(0);
    pool.executes(0, &wire);
    pool.sequencer.link_down(1);
    pool.sequencer.link_down(2);
    for step in 2..200 {
        pool.script(0);
        let wire = pool.batch(0);
        assert!(!wire.is_empty(), "it is sent");
        pool.sequencer.end_round();
        pool.tick(step * 10);
        assert_eq!(pool.is_answered(1), step * 10 > 1010, "at {} ms", step * 10);
        pool.executes(0, &wire);
        if pool.is_answered(1) {
            return;
        }
    }
    panic!("never given up");
}

/// A long script excuses everybody, for as long as it lasts.
#[test]
fn a_long_script_is_waited_for() {
    let mut pool = Pool::new(1 << 20);
    for id in 0..3 {
        pool.connect(id, Some(START));
    }
    pool.tick(10);
    pool.script(0);
    let wire = pool.batch(0);
    pool.sequencer.end_round();
    pool.push(1);
    for step in 2..500 {
        pool.tick(step * 10);
    }
    assert!(!pool.is_answered(1));
    assert!(!pool.effects.iter().any(|e| *e == Effect::Hung(0)));
    pool.executes(0, &wire);
    for step in 500..599 {
        pool.tick(step * 10);
    }
    assert!(!pool.is_answered(1), "what it was silent does not count");
    for step in 599..605 {
        pool.tick(step * 10);
    }
    assert!(pool.is_answered(1));
}
