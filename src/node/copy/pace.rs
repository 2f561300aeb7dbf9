//! How fast copies may go.
//!
//! A token bucket that may run into debt: who comes while there is none passes at once, whatever it spends, and the next one
//! waits until the debt is paid. So a chunk larger than the bucket passes too, and the rate holds over any longer time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// What may be saved up while nobody copies, in seconds of the rate.
const SAVED_S: f64 = 0.1;

/// Bounds the bytes per second of all copies that share it (it is cheap to clone, and clones share).
#[derive(Debug, Clone)]
pub struct Pace {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bucket: Mutex<Bucket>,
    /// The rate is another: who waits must look again.
    changed: Notify,
}

#[derive(Debug)]
struct Bucket {
    /// 0: unbounded.
    bytes_per_s: u64,
    /// Negative: debt.
    tokens: f64,
    filled_at: Instant,
}

impl Bucket {
    /// How long to wait before `bytes` may be spent; they are taken if it is not at all.
    fn take(&mut self, bytes: usize, now: Instant) -> Option<Duration> {
        let rate = self.bytes_per_s as f64;
        let elapsed_s = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.filled_at = now;
        if self.bytes_per_s == 0 {
            self.tokens = 0.0;
            return None;
        }
        self.tokens = (self.tokens + elapsed_s * rate).min(rate * SAVED_S);
        if self.tokens < 0.0 {
            // Rounded up, or the last fraction of a token would be waited for in steps of nothing.
            return Some(Duration::from_secs_f64(-self.tokens / rate) + Duration::from_millis(1));
        }
        self.tokens -= bytes as f64;
        None
    }
}

impl Pace {
    /// A pace of `bytes_per_s` bytes per second; 0: unbounded.
    pub fn new(bytes_per_s: u64) -> Self {
        let bucket = Bucket {
            bytes_per_s,
            tokens: 0.0,
            filled_at: Instant::now(),
        };
        Self {
            shared: Arc::new(Shared {
                bucket: Mutex::new(bucket),
                changed: Notify::new(),
            }),
        }
    }

    /// Another pace from now on, also for those who wait; 0: unbounded.
    pub fn set(&self, bytes_per_s: u64) {
        self.bucket().bytes_per_s = bytes_per_s;
        self.shared.changed.notify_waiters();
    }

    /// Waits until copies may go on, and counts `bytes` more.
    pub async fn spend(&self, bytes: usize) {
        loop {
            // Made before the rate is looked at, so that no change of it is missed.
            let changed = self.shared.changed.notified();
            let wait = self.bucket().take(bytes, Instant::now());
            let Some(wait) = wait else { return };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = changed => {}
            }
        }
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.shared.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_holds() {
        let begin = Instant::now();
        let mut bucket = Bucket {
            bytes_per_s: 1_000_000,
            tokens: 0.0,
            filled_at: begin,
        };
        let mut now = begin;
        for _ in 0..100 {
            while let Some(wait) = bucket.take(20_000, now) {
                now += wait;
            }
        }
        let elapsed = (now - begin).as_secs_f64();
        assert!((1.9..2.2).contains(&elapsed), "2 MB at 1 MB/s: {elapsed} s");
        now += Duration::from_secs(60);
        assert_eq!(bucket.take(200_000, now), None);
        let wait = bucket.take(1, now).unwrap().as_millis();
        assert_eq!(wait, 101, "only a tenth of a second has been saved up");
    }

    #[tokio::test]
    async fn who_waits_hears_of_another_rate() {
        let pace = Pace::new(1);
        pace.spend(1_000_000).await;
        let shared = pace.clone();
        let faster = async {
            tokio::task::yield_now().await;
            shared.set(0);
        };
        let begin = Instant::now();
        tokio::join!(pace.spend(1), faster);
        pace.spend(usize::MAX).await;
        assert!(begin.elapsed().as_secs() < 60, "it would have been 11 days");
    }
}
