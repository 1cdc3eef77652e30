//! Sessions with servers to be resumed, kept by each core for itself: a connection's tickets are
//! of use to the thread that got them, and cores share nothing.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::NamedGroup;
use rustls::client::{ClientSessionStore, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;

/// A configuration's door to the store of whatever thread uses it.
#[derive(Debug)]
pub(super) struct Sessions {
    /// Tells one configuration's sessions from another's: names alone do not say what was verified.
    id: u64,
}

#[derive(Debug, Default)]
struct Known {
    group: Option<NamedGroup>,
    tls12: Option<Tls12ClientSessionValue>,
    tls13: VecDeque<Tls13ClientSessionValue>,
}

#[derive(Debug, Default)]
struct Store {
    known: HashMap<(u64, ServerName<'static>), Known>,
    /// Oldest first; the oldest is forgotten when the store is full.
    order: VecDeque<(u64, ServerName<'static>)>,
}

impl Sessions {
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self { id: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    fn change(&self, name: ServerName<'static>, change: impl FnOnce(&mut Known)) {
        STORE.with_borrow_mut(|store| {
            let key = (self.id, name);
            if !store.known.contains_key(&key) {
                if store.order.len() == NAMES_MAX {
                    let oldest = store.order.pop_front();
                    oldest.and_then(|oldest| store.known.remove(&oldest));
                }
                store.order.push_back(key.clone());
            }
            change(store.known.entry(key).or_default());
        });
    }

    fn ask<T>(
        &self,
        name: &ServerName<'_>,
        ask: impl FnOnce(&mut Known) -> Option<T>,
    ) -> Option<T> {
        STORE.with_borrow_mut(|store| ask(store.known.get_mut(&(self.id, name.to_owned()))?))
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, name: ServerName<'static>, group: NamedGroup) {
        self.change(name, |known| known.group = Some(group));
    }

    fn kx_hint(&self, name: &ServerName<'_>) -> Option<NamedGroup> {
        self.ask(name, |known| known.group)
    }

    fn set_tls12_session(&self, name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.change(name, |known| known.tls12 = Some(value));
    }

    fn tls12_session(&self, name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.ask(name, |known| known.tls12.clone())
    }

    fn remove_tls12_session(&self, name: &ServerName<'static>) {
        self.ask(name, |known| known.tls12.take());
    }

    fn insert_tls13_ticket(&self, name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.change(name, |known| {
            if known.tls13.len() == TICKETS_MAX {
                known.tls13.pop_front();
            }
            known.tls13.push_back(value);
        });
    }

    fn take_tls13_ticket(&self, name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.ask(name, |known| known.tls13.pop_back())
    }
}

thread_local! {
    static STORE: RefCell<Store> = RefCell::default();
}

/// Server names a core remembers, and unused tickets for each.
const NAMES_MAX: usize = 512;
const TICKETS_MAX: usize = 8;
