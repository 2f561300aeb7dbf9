//! Claiming a node: making it ours, and impossible to use for whoever had it before (the *fence*).
//!
//! Every instance of a sidecar has ACL users of its own on the nodes, `rf-<instance>-<role>`; its connections log in as
//! them. One key on each node, the *claim*, says which instance may have users there. To take a node:
//!
//! 1. set the claim, in a transaction that watches it, if it is of a lower term: from now on nobody else can make a user;
//! 2. disable every other `rf-` user and kill its connections: after the reply not one of their commands is executed
//!    any more, not even one that is already in the node's buffers (invariant 5);
//! 3. make our own users, in a transaction that watches the claim.
//!
//! Users are disabled, not deleted: deleting one lets commands through on some versions. They vanish with the node's next
//! restart, and then the claim, which is data, still keeps strangers out.

use rand::RngExt;
use redis_protocol::resp3::types::BytesFrame;
use thiserror::Error;

use super::control::{Control, ControlError, bytes_of, is_error, pairs_of, text_of};
use crate::account;

/// What every user of ours is called first.
pub const USER_PREFIX: &str = "rf-";

/// One life of a sidecar.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Random, so never used twice.
    pub id: String,
    /// Password of its users.
    pub secret: String,
}

impl Instance {
    /// A new one.
    pub fn random() -> Self {
        let mut rng = rand::rng();
        Self {
            id: format!("{:012x}", rng.random::<u64>() >> 16),
            secret: format!("{:032x}", rng.random::<u128>()),
        }
    }

    /// Name of its user for a purpose: `w<n>` for worker n's streams, `c` for control connections, `m` for those of the mover.
    pub fn user(&self, role: &str) -> String {
        format!("{USER_PREFIX}{}-{role}", self.id)
    }
}

/// Who may use a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Every takeover has a higher one.
    pub term: u64,
    /// Which instance.
    pub instance: String,
    /// Of which pool: a random id made with the pool.
    pub pool: String,
}

impl Claim {
    /// As it is kept on the nodes.
    pub fn to_text(&self) -> String {
        format!("{}:{}:{}", self.term, self.instance, self.pool)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let term = parts.next()?.parse().ok()?;
        Some(Self {
            term,
            instance: parts.next()?.to_owned(),
            pool: parts.next()?.to_owned(),
        })
    }
}

/// Why a node could not be claimed.
#[derive(Debug, Error)]
pub enum AdmissionError {
    /// Another instance has claimed it with a term as high as ours, or higher.
    #[error("another sidecar (instance {}, term {}) has claimed the node", .0.instance, .0.term)]
    Superseded(Claim),
    /// It belongs to another pool.
    #[error(
        "belongs to another pool (id {0}): give this pool a node of its own, or, if that pool is gone for good, empty \
         the node with FLUSHALL"
    )]
    OtherPool(String),
    /// The node did not answer.
    #[error("{0}")]
    Control(#[from] ControlError),
}

/// Reads the node's claim. `control` stands in the bookkeeping database.
pub async fn read_claim(control: &mut Control) -> Result<Option<Claim>, ControlError> {
    let reply = control.call(&[b"GET", account::CLAIM]).await?;
    Ok(Claim::parse(&text_of(&reply)))
}

/// What a node is to the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The pool is being made of it. It may carry the claim of a pool that never came to be.
    Founder,
    /// It is being added: it has nothing, and need not have a claim.
    Newcomer,
    /// It is in the pool. If it has no claim, it has lost it, and all else.
    Member,
}

/// Claims the node for `mine`, fences all other instances, and makes users for `roles`. `control` is logged in as the operator's account and
/// stands in the bookkeeping database.
pub async fn admit(
    control: &mut Control,
    mine: &Claim,
    standing: Standing,
    instance: &Instance,
    roles: &[String],
) -> Result<(), AdmissionError> {
    set_claim(control, mine, standing).await?;
    fence_others(control, Some(instance)).await?;
    make_users(control, mine, instance, roles).await
}

/// Step 1.
async fn set_claim(control: &mut Control, mine: &Claim, standing: Standing) -> Result<(), AdmissionError> {
    loop {
        control.call(&[b"WATCH", account::CLAIM]).await?;
        let found = read_claim(control).await?;
        if let Some(found) = &found {
            if found == mine {
                control.call(&[b"UNWATCH"]).await?;
                return Ok(());
            }
            if found.pool != mine.pool && standing != Standing::Founder {
                return Err(AdmissionError::OtherPool(found.pool.clone()));
            }
            if found.term >= mine.term {
                return Err(AdmissionError::Superseded(found.clone()));
            }
        }
        let text = mine.to_text();
        let set: &[&[u8]] = &[b"SET", account::CLAIM, text.as_bytes()];
        // What it has applied since it was emptied is not all that there was.
        let forgot: &[&[u8]] = &[b"SET", account::FORGOT, b"1"];
        let forget: &[&[u8]] = &[b"DEL", account::APPLIED, account::TOUCHED];
        let is_done = match (&found, standing) {
            (None, Standing::Member) => transaction(control, &[set, forgot, forget]).await?,
            _ => transaction(control, &[set]).await?,
        };
        if is_done {
            return Ok(());
        }
    }
}

/// Step 2: disables the users of all instances but this one (`None`: of all), and ends their connections; in one transaction, however many
/// there are.
pub async fn fence_others(control: &mut Control, instance: Option<&Instance>) -> Result<(), ControlError> {
    let own = instance.map(|instance| instance.user(""));
    let BytesFrame::Array { data, .. } = control.call(&[b"ACL", b"USERS"]).await? else {
        return Ok(());
    };
    let is_other = |name: &&[u8]| {
        let is_own = own.as_ref().is_some_and(|own| name.starts_with(own.as_bytes()));
        name.starts_with(USER_PREFIX.as_bytes()) && !is_own
    };
    let others: Vec<&[u8]> = data.iter().map(bytes_of).filter(is_other).collect();
    let commands: Vec<Vec<&[u8]>> = others
        .iter()
        .flat_map(|name| {
            let disable: [&[u8]; 7] = [
                b"ACL",
                b"SETUSER",
                name,
                b"off",
                b"resetpass",
                b"resetkeys",
                b"-@all",
            ];
            let kill: [&[u8]; 4] = [b"CLIENT", b"KILL", b"USER", name];
            [disable.to_vec(), kill.to_vec()]
        })
        .collect();
    if commands.is_empty() {
        return Ok(());
    }
    let commands: Vec<&[&[u8]]> = commands.iter().map(Vec::as_slice).collect();
    transaction(control, &commands).await.map(drop)
}

/// Step 3.
async fn make_users(
    control: &mut Control,
    mine: &Claim,
    instance: &Instance,
    roles: &[String],
) -> Result<(), AdmissionError> {
    let names: Vec<String> = roles.iter().map(|role| instance.user(role)).collect();
    if has_users(control, &names).await? {
        return Ok(());
    }
    control.call(&[b"WATCH", account::CLAIM]).await?;
    match read_claim(control).await? {
        Some(found) if found == *mine => {}
        Some(found) => return Err(AdmissionError::Superseded(found)),
        None => {
            return Err(ControlError::Refused("the claim has vanished: was the node emptied?".into()).into());
        }
    }
    let password = format!(">{}", instance.secret);
    let commands: Vec<[&[u8]; 9]> = names
        .iter()
        .map(|name| {
            let set: [&[u8]; 9] = [
                b"ACL",
                b"SETUSER",
                name.as_bytes(),
                b"reset",
                b"on",
                password.as_bytes(),
                b"~*",
                b"&*",
                b"+@all",
            ];
            set
        })
        .collect();
    let commands: Vec<&[&[u8]]> = commands.iter().map(|c| &c[..]).collect();
    if transaction(control, &commands).await? {
        return Ok(());
    }
    Err(ControlError::Refused("the node was claimed by another sidecar just now".into()).into())
}

/// Whether these users are there, with all rights: only who has taken the node from us changes them. A node that is full makes no
/// new ones (it takes nothing into a transaction), and needs none.
async fn has_users(control: &mut Control, names: &[String]) -> Result<bool, AdmissionError> {
    for name in names {
        let user = control.call(&[b"ACL", b"GETUSER", name.as_bytes()]).await?;
        let flags = pairs_of(user)
            .into_iter()
            .find(|(field, _)| text_of(field) == "flags");
        let is_on = match flags {
            Some((_, BytesFrame::Set { data, .. })) => data.iter().any(|flag| text_of(flag) == "on"),
            Some((_, BytesFrame::Array { data, .. })) => data.iter().any(|flag| text_of(flag) == "on"),
            _ => false,
        };
        if !is_on {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Executes commands in one transaction; `false` if a watched key has changed.
async fn transaction(control: &mut Control, commands: &[&[&[u8]]]) -> Result<bool, ControlError> {
    let multi: &[&[u8]] = &[b"MULTI"];
    let exec: &[&[u8]] = &[b"EXEC"];
    let all = std::iter::once(multi)
        .chain(commands.iter().copied())
        .chain(std::iter::once(exec));
    let replies = control.call_all(all).await?;
    if let Some(error) = replies.iter().find(|reply| is_error(reply)) {
        return Err(ControlError::Refused(text_of(error)));
    }
    match replies.last() {
        Some(BytesFrame::Array { data, .. }) => match data.iter().find(|reply| is_error(reply)) {
            Some(error) => Err(ControlError::Refused(text_of(error))),
            None => Ok(true),
        },
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_come_back() {
        let claim = Claim {
            term: 7,
            instance: "ab12".into(),
            pool: "p:with:colons".into(),
        };
        assert_eq!(Claim::parse(&claim.to_text()), Some(claim));
        assert_eq!(Claim::parse("x"), None);
        assert_ne!(Instance::random().id, Instance::random().id);
    }
}
