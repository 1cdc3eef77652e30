//! The TLS sections of one file, as far as they were proven, and where each file they name was
//! named. They are loaded even when other rules failed, so that every mistake is told at once.

use std::collections::HashMap;
use std::sync::Arc;

use super::{FromClient, Loaded, Part, Problem, Tickets, ToServer};
use crate::config::plan::{Server, ServerTls, Tls};
use crate::config::problem::{Notes, Place};

/// What the TLS sections of a file became.
#[derive(Debug, Default)]
pub struct Contexts {
    /// By listener.
    pub from_client: HashMap<Arc<str>, Arc<FromClient>>,
    /// By pool.
    pub to_server: HashMap<Arc<str>, Arc<ToServer>>,
}

/// See the module's words.
#[derive(Debug, Default)]
pub(in crate::config) struct Sections {
    pub listeners: Vec<OfListener>,
    pub pools: Vec<OfPool>,
}

/// `tls.` of a listener, without what a rule has complained of already.
#[derive(Debug)]
pub(in crate::config) struct OfListener {
    pub name: Arc<str>,
    pub tls: Tls,
    pub places: Places,
}

/// `pools.X.tls`, and the pool's servers, likewise.
#[derive(Debug)]
pub(in crate::config) struct OfPool {
    pub name: Arc<str>,
    pub tls: ServerTls,
    pub servers: Vec<Server>,
    pub places: Places,
}

/// Where the files of a section were named.
#[derive(Debug)]
pub(in crate::config) struct Places {
    pub whole: Place,
    /// Certificate and key of each pair.
    pub pairs: Vec<(Place, Place)>,
    pub authorities: Option<Place>,
    pub tickets: Option<Place>,
}

impl Places {
    fn of(&self, part: Part) -> &Place {
        let found = match part {
            Part::Whole => None,
            Part::Certificate(pair) => self.pairs.get(pair).map(|(cert, _)| cert),
            Part::Key(pair) => self.pairs.get(pair).map(|(_, key)| key),
            Part::Authorities => self.authorities.as_ref(),
            Part::Tickets => self.tickets.as_ref(),
        };
        found.unwrap_or(&self.whole)
    }
}

impl Sections {
    /// Loads every file of every section, and notes what is wrong with each where it was named.
    pub fn load(self, tickets: &Tickets, notes: &Notes) -> Contexts {
        let mut contexts = Contexts::default();
        for OfListener { name, tls, places } in self.listeners {
            let made = noted(FromClient::load(&tls, tickets), &places, notes);
            contexts.from_client.extend(made.map(|context| (name, context)));
        }
        for OfPool { name, tls, servers, places } in self.pools {
            let made = noted(ToServer::load(&tls, &servers), &places, notes);
            contexts.to_server.extend(made.map(|context| (name, context)));
        }
        contexts
    }
}

fn noted<T>(
    loaded: Result<Loaded<T>, Vec<Problem>>,
    places: &Places,
    notes: &Notes,
) -> Option<Arc<T>> {
    match loaded {
        Ok(Loaded { value, warnings }) => {
            for warning in warnings {
                notes.warning(places.of(warning.part), warning.found(), warning.remedy);
            }
            Some(Arc::new(value))
        }
        Err(problems) => {
            for problem in problems {
                notes.mistake(places.of(problem.part), problem.found(), problem.remedy);
            }
            None
        }
    }
}
