//! The table: for each partition the nodes that hold it, and which of them are in sync. The truth that routing follows.
//!
//! A versioned record, kept as JSON in the bookkeeping database of every node, written and read by majority. The ring is
//! only where partitions should be ([`Table::target`]): the table is made from it when the pool is created, and follows it
//! partition by partition when nodes come and go.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use smallvec::SmallVec;

use crate::config::{NodeAddress, Secret};
use crate::profile::KeyRule;
use crate::request::{Membership, NodeId, PartitionId};
use crate::ring::{self, Keyspace, RingNode};

/// A node of the pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableNode {
    /// Its name: what the ring knows it by.
    pub name: String,
    /// Where it is.
    pub address: NodeAddress,
    /// Its share.
    pub weight: u32,
    /// What fails together with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The account that may make our users there, if it was named when the node was added (`proxy.toml` has precedence).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Its password.
    #[serde(default, skip_serializing_if = "Option::is_none", serialize_with = "exposed")]
    pub password: Option<Secret>,
    /// It should hold nothing: it is about to be taken out of the pool.
    #[serde(default, skip_serializing_if = "is_false")]
    pub draining: bool,
    /// It is not in the pool any more; only its place in the list is kept, until the next sidecar starts.
    #[serde(default, skip_serializing_if = "is_false")]
    pub removed: bool,
}

impl TableNode {
    /// A node that is in the pool.
    pub fn new(name: String, address: NodeAddress, weight: u32, zone: Option<String>) -> Self {
        Self {
            name,
            address,
            weight,
            zone,
            user: None,
            password: None,
            draining: false,
            removed: false,
        }
    }

    /// What the ring makes of it: nothing if it is to hold nothing.
    fn share(&self) -> u32 {
        match self.draining || self.removed {
            true => 0,
            false => self.weight,
        }
    }
}

/// What decides a node's share, as it was before a change that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerShare {
    /// The node.
    pub name: String,
    /// See [`TableNode::weight`].
    pub weight: u32,
    /// See [`TableNode::zone`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// See [`TableNode::draining`].
    #[serde(default, skip_serializing_if = "is_false")]
    pub draining: bool,
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The owner's term when its epoch began.
    pub epoch: u64,
    /// Seq at which that epoch began.
    pub start: u64,
    /// The first epoch in which that seq was reached: a node that stands there in any epoch since then lacks nothing of
    /// the time before this one.
    pub since: u64,
    /// The replica set, as places in `nodes`.
    pub replicas: SmallVec<[NodeId; 4]>,
    /// Those of it that are in sync, by bit.
    pub in_sync: u8,
}

impl Row {
    /// Its nodes that are in sync.
    pub fn nodes_in_sync(&self) -> SmallVec<[NodeId; 7]> {
        let is_in = |(i, _): &(usize, &NodeId)| self.in_sync & (1 << i) != 0;
        let in_sync = self.replicas.iter().enumerate().filter(is_in);
        in_sync.map(|(_, &node)| node).collect()
    }

    /// Its nodes, as the owner tells.
    pub fn set_members(&mut self, members: Membership) {
        self.replicas = members.replicas;
        self.in_sync = members.in_sync;
    }
}

/// The whole record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// The pool's name, for people.
    pub pool: String,
    /// The pool's id, made with it.
    pub id: String,
    /// Term of the sidecar that wrote the record.
    pub term: u64,
    /// Grows with every change.
    pub version: u64,
    /// The instance that wrote it.
    pub instance: String,
    /// Where other sidecars reach that one, if they can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<NodeAddress>,
    /// A digest of what its clients log in with, for those who pass clients on to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// R.
    pub replicas: u32,
    /// W.
    pub write_quorum: u32,
    /// The nodes. A node keeps its place as long as a sidecar serves.
    pub nodes: Vec<TableNode>,
    /// Nodes do not get what they should hold for the time being.
    #[serde(default, skip_serializing_if = "is_false")]
    pub paused: bool,
    /// What the nodes' shares were before the changes that are under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Vec<FormerShare>>,
    /// The profile that the pool was made with.
    #[serde(default = "crate::profile::default_name")]
    pub profile: String,
    /// Its rules of where keys live.
    #[serde(
        default,
        skip_serializing_if = "no_rules",
        serialize_with = "slice",
        deserialize_with = "arc"
    )]
    pub rules: Arc<[KeyRule]>,
    /// One row a partition.
    pub rows: Vec<Row>,
}

impl Table {
    /// The table of a new pool: every partition where the ring wants it, everything empty and in sync.
    pub fn create(
        pool: &str,
        id: String,
        nodes: Vec<TableNode>,
        partitions: u16,
        replicas: u32,
        write_quorum: u32,
    ) -> Self {
        let rows = place(&nodes, |_| true, partitions, replicas)
            .into_iter()
            .map(|set| Row {
                epoch: 0,
                start: 0,
                since: 0,
                in_sync: ((1u16 << set.len()) - 1) as u8,
                replicas: set.into_iter().collect(),
            })
            .collect();
        Self {
            pool: pool.into(),
            id,
            term: 0,
            version: 0,
            instance: String::new(),
            peer: None,
            login: None,
            replicas,
            write_quorum,
            nodes,
            paused: false,
            before: None,
            profile: crate::profile::default_name(),
            rules: Arc::default(),
            rows,
        }
    }

    /// The nodes that are in the pool.
    pub fn members(&self) -> impl Iterator<Item = (NodeId, &TableNode)> {
        let all = (0..).zip(&self.nodes);
        all.filter(|(_, node)| !node.removed)
    }

    /// Whether so many of its nodes are more than half.
    pub fn is_majority(&self, nodes: usize) -> bool {
        nodes * 2 > self.members().count()
    }

    /// The nodes that should hold each partition, if nodes that are `away` hold nothing.
    pub fn target(&self, is_away: impl Fn(NodeId) -> bool) -> Vec<ring::ReplicaSet> {
        place(
            &self.nodes,
            |node| !is_away(node),
            self.partitions(),
            self.replicas,
        )
    }

    /// Takes nodes that were removed out of the list; the others move up. Only while nobody has their places in memory.
    pub fn forget_removed(&mut self) {
        let mut next = 0;
        let places: Vec<NodeId> = self
            .nodes
            .iter()
            .map(|node| {
                let place = next;
                next += NodeId::from(!node.removed);
                place
            })
            .collect();
        for row in &mut self.rows {
            for node in &mut row.replicas {
                *node = places.get(usize::from(*node)).copied().unwrap_or_default();
            }
        }
        self.nodes.retain(|node| !node.removed);
    }

    /// How keys are divided over its partitions.
    pub fn keyspace(&self) -> Keyspace {
        Keyspace {
            partitions: self.partitions(),
            rules: self.rules.clone(),
        }
    }

    /// Number of partitions.
    pub fn partitions(&self) -> u16 {
        self.rows.len() as u16
    }

    /// Reads a record.
    pub fn parse(json: &[u8]) -> Option<Self> {
        let table: Self = serde_json::from_slice(json).ok()?;
        let nodes = table.nodes.len();
        let sound = |row: &Row| {
            let known = row.replicas.iter().all(|&n| usize::from(n) < nodes);
            let distinct = (row.replicas.iter().enumerate())
                .all(|(i, node)| row.replicas.iter().skip(i + 1).all(|other| other != node));
            let in_set = u32::from(row.in_sync) >> row.replicas.len().min(8) == 0;
            let is_member = |&n: &NodeId| table.nodes.get(usize::from(n)).is_some_and(|n| !n.removed);
            row.replicas.iter().all(is_member)
                && known
                && distinct
                && in_set
                && !row.replicas.is_empty()
                && row.replicas.len() <= 8
        };
        (!table.rows.is_empty()
            && (1..=table.replicas).contains(&table.write_quorum)
            && table.rows.len() <= crate::limits::PARTITIONS_MAX
            && table.rows.iter().all(sound))
        .then_some(table)
    }

    /// Writes the record.
    pub fn to_json(&self) -> Vec<u8> {
        // Plain data of our own: this cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Which of two records is the later one.
    pub fn stamp(&self) -> (u64, u64) {
        (self.term, self.version)
    }

    /// The partitions that `node` should hold.
    pub fn partitions_of(&self, node: NodeId) -> impl Iterator<Item = (PartitionId, &Row)> {
        self.rows
            .iter()
            .enumerate()
            .filter(move |(_, row)| row.replicas.contains(&node))
            .map(|(partition, row)| (partition as PartitionId, row))
    }
}

fn place(
    nodes: &[TableNode],
    may_hold: impl Fn(NodeId) -> bool,
    partitions: u16,
    replicas: u32,
) -> Vec<ring::ReplicaSet> {
    let ring: Vec<RingNode<'_>> = (0..)
        .zip(nodes)
        .map(|(id, node)| RingNode {
            name: &node.name,
            weight: if may_hold(id) { node.share() } else { 0 },
            zone: node.zone.as_deref(),
        })
        .collect();
    ring::place(&ring, partitions, replicas as usize)
}

fn is_false(value: &bool) -> bool {
    !value
}

fn no_rules(rules: &Arc<[KeyRule]>) -> bool {
    rules.is_empty()
}

fn slice<S: Serializer>(rules: &Arc<[KeyRule]>, serializer: S) -> Result<S::Ok, S::Error> {
    rules[..].serialize(serializer)
}

fn arc<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<[KeyRule]>, D::Error> {
    Vec::deserialize(deserializer).map(Arc::from)
}

fn exposed<S: Serializer>(password: &Option<Secret>, serializer: S) -> Result<S::Ok, S::Error> {
    password.as_ref().map(Secret::expose).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_comes_back_and_nonsense_does_not() {
        let node = |name: &str| {
            let address = format!("127.0.0.1:{}", 7000 + name.len()).parse().unwrap();
            TableNode::new(name.into(), address, 1, None)
        };
        let table = Table::create(
            "p",
            "id".into(),
            vec![node("a"), node("bb"), node("ccc")],
            16,
            2,
            2,
        );
        assert_eq!(table.rows.len(), 16);
        assert!(
            table
                .rows
                .iter()
                .all(|row| row.in_sync == 0b11 && row.replicas.len() == 2)
        );
        assert_eq!(Table::parse(&table.to_json()), Some(table.clone()));
        let changes: [fn(&mut Table); 6] = [
            |table| table.rows[3].replicas[0] = 9,
            |table| table.rows[3].replicas = SmallVec::from_slice(&[1, 1]),
            |table| table.rows[3].replicas.clear(),
            |table| table.rows[3].in_sync = 0b111,
            |table| table.write_quorum = 0,
            |table| table.write_quorum = 3,
        ];
        for (n, change) in changes.iter().enumerate() {
            let mut broken = table.clone();
            change(&mut broken);
            assert_eq!(Table::parse(&broken.to_json()), None, "change {n}");
        }
        assert_eq!(Table::parse(b"{}"), None);
    }
}
