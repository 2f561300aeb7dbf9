//! The pool as a whole: the table, who may use the nodes, and what to do when an owner has died.
//!
//! `coordinator = "pool"`: one active sidecar. It claims a majority of the nodes with a new term (which fences whoever
//! was there before), reads the table from them, brings the nodes to one position ([`recover`]), writes the table with its
//! own term, and only then serves. Nothing here waits for a lease, and no clock decides anything.

mod admissions;
mod keeper;
mod node_info;
mod open;
mod recovery;
pub mod shelf;

pub mod recover;
pub mod table;

pub use admissions::Admissions;
pub use keeper::{
    ChangeError, Keeper, NewNode, NodeHealth, NodeTrouble, PoolEvent, ShareChange, TroubleKind,
};
pub use node_info::{FORGETS, NodeInfo};
pub use open::{Candidacy, OpenError, Opened, Presence, open};
pub(crate) use open::{
    connect_as_operator, login_digest, node_of, read_known_table, settings_fit, use_addresses,
};
