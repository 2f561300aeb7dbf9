//! A copy from one node to another while both are used, and its hand-over.

use super::*;

impl World {
    pub(super) fn copy_step(
        &mut self,
        s: usize,
        job: &mut Job,
        outcomes: &[Outcome],
        well: bool,
    ) -> Result<Went, String> {
        let from = job.from.unwrap();
        if job.phase == Phase::Hold && outcomes == [Outcome::Done] {
            job.held += 1;
        }
        if !self.alive(s, from) {
            return Ok(Went::Wrong("the source has gone"));
        }
        if let Some((key, value)) = job.carried.take() {
            return Ok(match self.change(s, job.to, Change::Put(key, value), well) {
                true => Went::On,
                false => Went::Wrong("copying a key"),
            });
        }
        if let Some(key) = job.dirty.pop_front() {
            let value = self.nodes[from.node].data.get(&key).cloned();
            job.carried = Some((key, value));
            return Ok(Went::On);
        }
        let (source, to) = (from.node as NodeId, job.to.node as NodeId);
        match job.phase {
            Phase::Scan => match self.next_key(from.node, job) {
                Some(key) => job.dirty.push_back(key),
                None => job.phase = Phase::CatchUp,
            },
            Phase::CatchUp => {
                job.passes += 1;
                // What changes in the same moment may be told a little later.
                let unseen = self.nodes[from.node].changes.len() - job.seen;
                let late = if self.rng.percent(50) {
                    0
                } else {
                    self.rng.below(3)
                };
                self.take_changes(from.node, job, unseen.saturating_sub(late));
                if job.dirty.is_empty() || job.passes > 2 {
                    job.phase = Phase::Hold;
                    let (first, hold) = (job.partitions[0], job.hold);
                    self.ask(s, Some(job), first, hold, Action::Hold)?;
                }
            }
            Phase::Hold => {
                if let Some(next) = job.partitions.get(job.held).copied() {
                    let hold = job.hold;
                    self.ask(s, Some(job), next, hold, Action::Hold)?;
                } else {
                    job.phase = Phase::RestHeld;
                    let hold = job.hold;
                    for partition in job.partitions.clone() {
                        self.ask(s, Some(job), partition, hold, Action::Settled(source))?;
                    }
                    self.ask(s, Some(job), 0, hold, Action::OnNode(to, ping()))?;
                }
            }
            Phase::RestHeld => {
                if outcomes
                    .iter()
                    .any(|outcome| matches!(outcome, Outcome::Refused(_)))
                {
                    return Ok(Went::Wrong("coming to rest under the hold"));
                }
                if !well && self.rng.percent(10) {
                    // Too much has changed: once more, and clients go on meanwhile.
                    for partition in job.partitions.clone() {
                        self.ask(s, None, partition, job.hold, Action::Release)?;
                    }
                    job.held = 0;
                    job.phase = Phase::CatchUp;
                    return Ok(Went::On);
                }
                let unseen = self.nodes[from.node].changes.len() - job.seen;
                self.take_changes(from.node, job, unseen);
                job.phase = Phase::Last;
            }
            Phase::Last => {
                let node = &self.nodes[from.node];
                let applied = node.account().applied;
                // One of which it has never been noted is at the beginning.
                let of = |p: &PartitionId| (*p, Some(applied.get(p).copied().unwrap_or_default()));
                job.positions = Some(job.partitions.iter().map(of).collect());
                job.phase = Phase::Account;
            }
            Phase::Account => {
                let positions = job.positions.take().unwrap_or_default();
                let account = Change::Account(positions.clone());
                if !self.change(s, job.to, account, well) {
                    return Ok(Went::Wrong("the account"));
                }
                job.phase = Phase::Join;
                for (partition, position) in positions {
                    // Of one copy the account says which partitions it has, and not how far.
                    let position = position.filter(|_| self.plan.replicas > 1);
                    let hold = job.hold;
                    self.ask(s, Some(job), partition, hold, Action::Join(to, position))?;
                    // Owners are asked one by one.
                    if !well && self.fails() {
                        return Ok(Went::Wrong("joining took too long"));
                    }
                }
            }
            Phase::Join if outcomes.iter().any(|outcome| *outcome != Outcome::Done) => {
                return Ok(Went::Wrong("joining"));
            }
            Phase::Join if self.plan.replicas > 1 => return Ok(Went::Done),
            Phase::Join => job.phase = Phase::Joined,
            Phase::Joined if !self.is_recorded(s, job, |row| row.contains(&to)) => {}
            Phase::Joined => {
                job.phase = Phase::Switch;
                let hold = job.hold;
                for partition in job.partitions.clone() {
                    self.ask(s, Some(job), partition, hold, Action::Leave(source))?;
                }
            }
            Phase::Switch if outcomes.iter().any(|outcome| *outcome != Outcome::Done) => {
                return Ok(Went::Wrong("leaving"));
            }
            Phase::Switch => job.phase = Phase::Switched,
            Phase::Switched if !self.is_recorded(s, job, |row| !row.contains(&source)) => {}
            Phase::Switched => return Ok(Went::Done),
            other => return Err(format!("a copy is in {other:?}")),
        }
        Ok(Went::On)
    }

    fn is_recorded(&mut self, s: usize, job: &Job, has: impl Fn(&[NodeId]) -> bool) -> bool {
        self.serving(s).is_some_and(|serving| {
            let rows = &serving.keeper.table.rows;
            let mut mine = job.partitions.iter().map(|p| &rows[usize::from(*p)]);
            mine.all(|row| has(&row.replicas))
        })
    }

    /// The next of a node's keys of the job's partitions.
    pub(super) fn next_key(&self, n: usize, job: &mut Job) -> Option<Key> {
        let is_mine = |key: &&Key| {
            key.0 != BOOKKEEPING_DB
                && job.partitions.contains(&partition_of(&key.1))
                && job.cursor.as_ref().is_none_or(|cursor| *key > cursor)
        };
        let next = self.nodes[n].data.keys().find(is_mine).cloned();
        job.cursor.clone_from(&next);
        next
    }

    /// Takes so many of the changes that the source tells of.
    fn take_changes(&self, n: usize, job: &mut Job, count: usize) {
        let changes = &self.nodes[n].changes[job.seen..job.seen + count];
        job.seen += count;
        let mine: BTreeSet<Key> = changes
            .iter()
            .filter(|key| job.partitions.contains(&partition_of(&key.1)))
            .cloned()
            .collect();
        job.dirty.extend(mine);
    }
}
