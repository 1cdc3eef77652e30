//! From a request to a place: which rule, which pool, and whether a server is spoken for already.
//! It looks at one snapshot and at counts; it neither dials nor answers.

use std::net::IpAddr;

use crate::balance::{Counts, GOLDEN, Policy, key_of_source};
use crate::config::plan::{L7, Rule, Share, Sticky};
use crate::config::snapshot::Snapshot;
use crate::meter::Cause;
use crate::proto::http::{RequestHead, fields};
use crate::route::{self, Headers, Request, Target, key, split};

use super::answer::Refusal;

/// Where a request goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Index into the listener's rules.
    pub rule: usize,
    /// Index into the plan's pools.
    pub pool: usize,
    /// The server a valid cookie names, if it may still be used.
    pub held: Option<usize>,
    /// What a keyed choice goes by.
    pub key: Option<u64>,
}

/// A request that goes nowhere: what it is told, and what its ending is called.
pub type Nowhere = (Refusal, Cause);

/// The lines of a head, as the router wants them.
struct Lines<'h, 'a>(&'h RequestHead<'a>);

impl Headers for Lines<'_, '_> {
    fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.0.fields.iter().filter(move |field| field.is(name)).map(|field| field.value)
    }
}

/// Finds the rule of a request.
///
/// # Errors
/// The answer to a request that fits none, or whose path can be read in two ways.
pub fn rule(l7: &L7, head: &RequestHead<'_>) -> Result<usize, Nowhere> {
    let ambiguous = |refusal| (Refusal::new(400, sentence_of(refusal)), Cause::HeadBad);
    // `OPTIONS *` asks the server itself: the one its host's pages come from.
    let target = if head.target == "*" { "/" } else { head.path_and_query() };
    let target = Target::read(target.as_bytes()).map_err(ambiguous)?;
    let host = head.host.unwrap_or_default().as_bytes();
    let request = Request { host, target, headers: &Lines(head) };
    match l7.routes.find(&request).map_err(ambiguous)? {
        Some(rule) if rule < l7.rules.len() => Ok(rule),
        _ => {
            Err((Refusal::new(404, "Nothing is served under this host and path."), Cause::NoRoute))
        }
    }
}

/// Whether a page of this origin may open a WebSocket here.
///
/// # Errors
/// The answer to one that may not.
pub fn origin(rule: &Rule, head: &RequestHead<'_>) -> Result<(), Nowhere> {
    let refused =
        || (Refusal::new(403, "WebSockets are not open to this origin."), Cause::OriginRefused);
    let Some(origins) = &rule.origins else { return Ok(()) };
    match fields::only(&head.fields, "origin") {
        Ok(origin) if origins.pass(origin) => Ok(()),
        _ => Err(refused()),
    }
}

/// Finds the pool, and the server if the client is tied to one.
pub fn place(
    snapshot: &Snapshot,
    rule: (usize, &Rule),
    head: &RequestHead<'_>,
    client: IpAddr,
    counts: &impl Counts,
    random: u64,
) -> Option<Place> {
    let (index, rule) = rule;
    let lines = Lines(head);
    for share in rule.pools.iter().filter(|share| share.weight > 0) {
        let Some(state) = snapshot.pools.get(share.pool) else { continue };
        let named = state.cookie.as_ref().and_then(|cookie| cookie.find(&lines));
        if let Some(member) = named.filter(|member| state.group.sticky(*member, counts)) {
            // Should that server not answer, the client is placed as one without a cookie.
            let (pool, held) = (share.pool, Some(member));
            let key = key(snapshot, pool, head, client);
            return Some(Place { rule: index, pool, held, key });
        }
    }
    // A client that is placed by a key keeps its pool as well as its server.
    let keyed = rule.pools.first().filter(|_| rule.pools.len() > 1);
    let keyed = keyed.and_then(|share| key(snapshot, share.pool, head, client));
    let random = keyed.map_or(random, |key| key.wrapping_mul(SPREAD));
    // The share of a pool that cannot serve falls to the others.
    let serves = |share: &&Share| {
        snapshot.pools.get(share.pool).is_some_and(|state| !state.group.is_empty())
    };
    let open = rule.pools.iter().map(|share| if serves(&share) { share.weight } else { 0 });
    let all = rule.pools.iter().map(|share| share.weight);
    let usual = split::pick(all, random);
    let share = usual
        .filter(|share| serves(&&rule.pools[*share]))
        .or_else(|| split::pick(open, random.wrapping_mul(SPREAD)))
        .or(usual)?;
    let pool = rule.pools.get(share)?.pool;
    let key = key(snapshot, pool, head, client);
    Some(Place { rule: index, pool, held: None, key })
}

/// Makes another number of a key than its place among servers is found by.
const SPREAD: u64 = GOLDEN;

fn key(snapshot: &Snapshot, pool: usize, head: &RequestHead<'_>, client: IpAddr) -> Option<u64> {
    let plan = snapshot.plan.pools.get(pool)?;
    let by_source = || match plan.policy {
        Policy::SourceHash { .. } => Some(key_of_source(client)),
        _ => None,
    };
    match &plan.sticky {
        Some(Sticky::Header(name)) => key::of_header(&Lines(head), name).or_else(by_source),
        Some(Sticky::Query(name)) => {
            key::of_query(head.query().map(str::as_bytes), name).or_else(by_source)
        }
        _ => by_source(),
    }
}

fn sentence_of(refusal: route::Refusal) -> &'static str {
    match refusal {
        route::Refusal::Form => "The request target is not a path.",
        route::Refusal::Byte => "The path holds a byte that must be escaped.",
        route::Refusal::Escape => "The path holds a broken percent escape.",
        route::Refusal::Segment => "The path holds an empty or a dot segment.",
        route::Refusal::Ambiguous => "The path is escaped so that it could be read in two ways.",
        route::Refusal::Host => "The Host header is not a host name.",
    }
}
