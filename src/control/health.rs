//! Active checks: one small task for each checked server, spread in time so that no two beat
//! together. It reports results; the verdict is balance's.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::balance::ServerId;

use super::probe::{self, Fault, Target};

/// One check came back.
#[derive(Debug)]
pub struct Checked {
    pub id: ServerId,
    pub result: Result<(), Fault>,
}

/// The first check comes early even where later ones are far apart.
const FIRST_WITHIN: Duration = Duration::from_secs(1);

/// Every interval varies by up to this part of itself, either way.
const JITTER: f64 = 0.1;

/// All running checks. Dropping it ends them.
#[derive(Debug)]
pub struct Checks {
    running: HashMap<ServerId, (Target, JoinHandle<()>)>,
    results: mpsc::Sender<Checked>,
}

impl Checks {
    pub fn new(results: mpsc::Sender<Checked>) -> Self {
        Self { running: HashMap::new(), results }
    }

    /// Goes over to these targets. A check whose target is as it was goes on undisturbed.
    pub fn set(&mut self, targets: Vec<(ServerId, Target)>) {
        let mut before = std::mem::take(&mut self.running);
        for (id, target) in targets {
            let check = match before.remove(&id) {
                Some(check) if check.0 == target => check,
                other => {
                    if let Some((_, task)) = other {
                        task.abort();
                    }
                    (target.clone(), self.start(id, target))
                }
            };
            self.running.insert(id, check);
        }
        for (_, task) in before.into_values() {
            task.abort();
        }
    }

    fn start(&self, id: ServerId, target: Target) -> JoinHandle<()> {
        let results = self.results.clone();
        tokio::spawn(async move {
            let every = target.health.every;
            // One reload may change what a thousand servers are asked: not all at once. Soon,
            // though, for the next reload may come before a whole `every` has gone by.
            tokio::time::sleep(every.min(FIRST_WITHIN).mul_f64(fastrand::f64())).await;
            loop {
                let result = probe::check(&target).await;
                if results.send(Checked { id, result }).await.is_err() {
                    return;
                }
                let stretch = 1.0 + JITTER * (2.0 * fastrand::f64() - 1.0);
                tokio::time::sleep(every.mul_f64(stretch)).await;
            }
        })
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        for (_, task) in self.running.values() {
            task.abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::plan::{Health, ServerAddress};

    #[tokio::test]
    async fn a_check_that_begins_anew_is_made_soon() {
        let health = Health {
            every: Duration::from_secs(3600),
            timeout: Duration::from_secs(1),
            rise: 1,
            fall: 1,
            http: None,
        };
        let address = ServerAddress::Unix("/nowhere/at/all.sock".into());
        let (source, send_proxy, tls, host) = (None, None, None, "a".to_owned());
        let mut target = Target { address, health, source, send_proxy, tls, host };
        let (sender, mut results) = mpsc::channel(4);
        let mut checks = Checks::new(sender);
        checks.set(vec![(ServerId(0), target.clone())]);
        let first = tokio::time::timeout(FIRST_WITHIN * 5, results.recv()).await;
        assert!(first.is_ok(), "one that is new is checked soon");
        target.health.fall = 2;
        checks.set(vec![(ServerId(0), target)]);
        let next = tokio::time::timeout(FIRST_WITHIN * 5, results.recv()).await;
        assert!(next.is_ok(), "and one that has changed");
    }
}
