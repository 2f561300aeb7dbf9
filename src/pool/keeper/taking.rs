//! Taking a node: looking it over, claiming it, and again and again whether it is still what was claimed.
//!
//! At a known address there may suddenly be something else. A server with somebody else's data must not be touched; one that
//! has lost what it had may be given it again; and which of them it is, is told by two things: the claim, which is data, and
//! the number of the process's start (`run_id`). A process that was ours is still ours when it has forgotten that. An unknown
//! one without a claim is taken only if it is empty.

use tracing::debug;

use super::{Keeper, NodeTrouble, TroubleKind, lock};
use crate::account;
use crate::config;
use crate::node::{
    AdmissionError, CheckFailure, Claim, Control, ControlError, Standing, admit, databases, is_error, listed,
    look_over, read_claim, remove_all, text_of,
};
use crate::pool::node_info::NodeInfo;
use crate::pool::open::connect_as_operator;
use crate::pool::recover::rules_out_successor;
use crate::pool::table::TableNode;
use crate::request::NodeId;

impl Keeper {
    /// Claims the node and makes its control connections: that over which it is watched.
    pub(super) async fn take(&self, id: NodeId, node: &config::Node) -> Result<Control, Untaken> {
        let timeout = self.config.timeouts.connect;
        let mut control = connect_as_operator(node, timeout).await?;
        let facts = look_over(&mut control, self.config.pool.bookkeeping_db).await?;
        self.is_no_other(id, &facts.run_id)?;
        // What a node without a claim has forgotten may be that a successor has claimed it. One that claims a majority
        // after this question meets a node that carries our claim; so it is asked again when the node is ours.
        let forgetful = read_claim(&mut control).await?.is_none();
        let is_ours = self.health(id).run_id == facts.run_id;
        if forgetful {
            if !is_ours && let Some(why) = foreign_keys(&mut control).await? {
                return Err(unfit(why));
            }
            self.rule_out_successor(id).await?;
        }
        match admit(
            &mut control,
            &self.claim,
            Standing::Member,
            &self.instance,
            &self.roles,
        )
        .await
        {
            Ok(()) => {}
            Err(AdmissionError::Superseded(claim)) => return Err(Untaken::Fenced(claim)),
            Err(error @ AdmissionError::OtherPool(_)) => return Err(unfit(error.to_string())),
            Err(AdmissionError::Control(error)) => return Err(error.into()),
        }
        if forgetful {
            self.rule_out_successor(id).await?;
            if is_ours {
                self.empty(&mut control).await?;
            }
        }
        if let Some(health) = self.health.get(usize::from(id)) {
            lock(health).run_id = facts.run_id;
        }
        let user = self.instance.user("c");
        let login = Some((user.as_str(), self.instance.secret.as_str()));
        let mut own = Control::connect(&node.address, login, timeout).await?;
        let Some(slot) = self.controls.get(usize::from(id)) else {
            return Ok(own);
        };
        // Under the locks, so that an older record cannot overtake a newer one.
        let shelf = self.shelf.lock().await;
        let mut slot = slot.lock().await;
        // A node that is full, or whose disk is, has its data all the same. The next record, or change of the shelf, is whole.
        unless_refused(self.give_record(&mut own).await)?;
        unless_refused(self.shelve_all(id, &shelf, &mut own).await)?;
        *slot = Some(own);
        // As a user of its own, so that those that stand by see that somebody looks after the node.
        let mut watch = Control::connect(&node.address, login, timeout).await?;
        watch.select(self.config.pool.bookkeeping_db).await?;
        Ok(watch)
    }

    /// Asks the other nodes whether they still carry our claim, enough of them for nobody else to have a majority (invariant 12).
    async fn rule_out_successor(&self, id: NodeId) -> Result<(), Untaken> {
        let table = self.table();
        let others = table.members().map(|(node, _)| node).filter(|node| *node != id);
        let asked = others.map(|other| async move {
            let Some(slot) = self.controls.get(usize::from(other)) else {
                return false;
            };
            let mut slot = slot.lock().await;
            let Some(control) = slot.as_mut() else {
                return false;
            };
            matches!(read_claim(control).await, Ok(Some(claim)) if claim == self.claim)
        });
        let witnesses = futures::future::join_all(asked).await;
        let witnesses = witnesses.into_iter().filter(|&carries| carries).count();
        let members = table.members().count();
        if rules_out_successor(members, witnesses) {
            return Ok(());
        }
        Err(away(format!(
            "is empty, so it may have forgotten that another sidecar has claimed it, and only {witnesses} of the other nodes \
             show that none has: it is used again when more of them answer, or when this sidecar is restarted"
        )))
    }

    /// Two addresses may lead to one server, if an address was changed while it was not looked at.
    fn is_no_other(&self, id: NodeId, run_id: &str) -> Result<(), Untaken> {
        let table = self.table();
        let is_it = |(other, _): &(NodeId, &TableNode)| {
            let health = self.health(*other);
            *other != id && health.claimed && health.run_id == run_id
        };
        match table.members().find(is_it) {
            Some((_, other)) => Err(unfit(format!(
                "is the same server as node {:?}: two copies there would be lost together. Correct its address",
                other.name
            ))),
            None => Ok(()),
        }
    }

    /// Removes everything from a node that has been emptied, or has copied another server's data, since it was claimed: what it
    /// has now is neither ours nor its own.
    async fn empty(&self, control: &mut Control) -> Result<(), ControlError> {
        // Nobody may rely on what it has while it goes.
        self.cut_streams(control).await?;
        let bookkeeping_db = self.config.pool.bookkeeping_db;
        remove_all(control, bookkeeping_db).await?;
        control.select(bookkeeping_db).await?;
        let forget: [&[u8]; 4] = [b"DEL", account::APPLIED, account::TOUCHED, account::REPAIR];
        control.call(&forget).await.map(drop)
    }

    /// Ends the streams to a node: they come back when it has been claimed again.
    async fn cut_streams(&self, control: &mut Control) -> Result<(), ControlError> {
        for role in &self.roles {
            let user = self.instance.user(role);
            control
                .call(&[b"CLIENT", b"KILL", b"USER", user.as_bytes()])
                .await?;
        }
        Ok(())
    }

    /// Looks at a claimed node again: what it says of itself, or what is wrong with it.
    pub(super) async fn look_again(&self, control: &mut Control) -> Result<NodeInfo, String> {
        let replies = control
            .call_all([&[&b"INFO"[..]][..], &[b"GET", account::CLAIM]])
            .await;
        let replies = replies.map_err(|error| error.to_string())?;
        let text = |i: usize| replies.get(i).map(text_of).unwrap_or_default();
        if let Some(error) = replies.iter().find(|reply| is_error(reply)) {
            return Err(text_of(error));
        }
        let info = NodeInfo::parse(&text(0));
        if info.is_replica || text(1) != self.claim.to_text() {
            // What is written there fails; reads would not.
            self.cut_streams(control)
                .await
                .map_err(|error| error.to_string())?;
            return Err("it is another's now, or has been emptied".into());
        }
        Ok(info)
    }
}

/// A server that was not ours until now, and carries no claim, must have nothing that could be somebody's: what is wrong, if it has.
pub(in crate::pool) async fn foreign_keys(control: &mut Control) -> Result<Option<String>, ControlError> {
    let dbs = databases(control).await?;
    if dbs.is_empty() {
        return Ok(None);
    }
    Ok(Some(format!(
        "has lost its pool's mark, and holds keys that may be somebody else's (in database {}), so it is not touched: correct its \
         address, or empty it with FLUSHALL if nobody needs them",
        listed(&dbs)
    )))
}

/// Why a node was not taken.
pub(super) enum Untaken {
    Fenced(Claim),
    Trouble(NodeTrouble),
}

fn away(why: String) -> Untaken {
    let kind = TroubleKind::Away;
    Untaken::Trouble(NodeTrouble { kind, why })
}

fn unfit(why: String) -> Untaken {
    let kind = TroubleKind::Unfit;
    Untaken::Trouble(NodeTrouble { kind, why })
}

impl From<CheckFailure> for Untaken {
    fn from(failure: CheckFailure) -> Self {
        match failure {
            CheckFailure::Unreachable(error @ ControlError::Refused(_)) => error.into(),
            // It will be fit when it has time.
            CheckFailure::Unfit(why) if !why.contains("BUSY ") => unfit(why),
            other => away(other.to_string()),
        }
    }
}

impl From<ControlError> for Untaken {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Refused(why) if why.starts_with("LOADING") => CheckFailure::Loading.into(),
            ControlError::Refused(why) => Untaken::Trouble(NodeTrouble {
                kind: TroubleKind::Refuses,
                why: format!("refuses what it is given: {why}"),
            }),
            error => CheckFailure::Unreachable(error).into(),
        }
    }
}

/// What was done, or refused.
fn unless_refused(done: Result<(), ControlError>) -> Result<(), ControlError> {
    match done {
        Err(ControlError::Refused(why)) => {
            debug!(why, "a node does not take what is kept with the pool");
            Ok(())
        }
        done => done,
    }
}
