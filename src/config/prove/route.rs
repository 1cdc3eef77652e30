//! Rules of `[[listeners.NAME.routes]]`.

use std::sync::Arc;

use crate::config::plan::{RelayUnit, Rule, Share};
use crate::config::problem::{At, set};
use crate::config::written::{self, Pair, Route};
use crate::route::{Origins, Pattern, Routes};

use super::Proof;

impl Proof<'_> {
    pub fn routes(&self, written: &written::Listener) -> Option<(Routes, Vec<Arc<Rule>>)> {
        let list = match &written.routes {
            Some(list) => list,
            None => {
                self.notes.missing(&written.name.place, "routes", ADD);
                return None;
            }
        };
        if list.value.is_empty() && !self.notes.is_spoken_for(&list.place.key) {
            self.notes.mistake(&list.place, "is empty", ADD);
        }
        let mut patterns: Vec<(Pattern, usize)> = Vec::new();
        let mut rules = Vec::new();
        for route in &list.value {
            let (pattern, rule) = (self.pattern(route), self.rule(route));
            let Some(pattern) = pattern else { continue };
            if let Some((_, line)) = patterns.iter().find(|(first, _)| first.is_same(&pattern)) {
                let found = format!("matches what the route on line {line} matches");
                let remedy = "it would never be reached; remove it or add a condition";
                self.notes.mistake(&route.place, found, remedy);
            }
            patterns.push((pattern, route.place.line));
            rules.extend(rule.map(Arc::new));
        }
        Some((Routes::new(patterns.into_iter().map(|(pattern, _)| pattern)), rules))
    }

    fn pattern(&self, route: &Route) -> Option<Pattern> {
        let checked = |at: &At<String>, pattern: Result<Pattern, &'static str>| match pattern {
            Ok(pattern) => Some(pattern),
            Err(remedy) => {
                self.notes.mistake(&at.place, format!("found {:?}", at.value), remedy);
                None
            }
        };
        let mut pattern = Some(Pattern::default());
        if let Some(at) = &route.host {
            pattern = checked(at, pattern.unwrap_or_default().host(&at.value));
        }
        if let Some(at) = &route.path {
            // Checked even after a bad host: both are told at once.
            let path = checked(at, pattern.clone().unwrap_or_default().path(&at.value));
            pattern = pattern.and(path);
        }
        let mut pattern = pattern?;
        if let Some(protocol) = &route.protocol {
            pattern = pattern.protocol(&protocol.value);
        }
        for (name, value) in &route.query {
            pattern = pattern.query(&name.value, &value.value);
        }
        for (name, value) in &route.header {
            pattern = pattern.header(&name.value, &value.value);
        }
        Some(pattern)
    }

    fn rule(&self, route: &Route) -> Option<Rule> {
        let pools = self.shares(route);
        let origins = self.origins(route);
        let relay = set(&route.relay, RelayUnit::Frames);
        if relay == RelayUnit::Bytes {
            for place in [
                route.max_frame.as_ref().map(|at| &at.place),
                route.max_message.as_ref().map(|at| &at.place),
                route.messages_per_second.as_ref().map(|at| &at.place),
            ]
            .into_iter()
            .flatten()
            {
                let remedy = "leave it out, or set relay = \"frames\"";
                self.notes.mistake(place, "cannot be kept with relay = \"bytes\"", remedy);
            }
        }
        if let (Some(frame), Some(message)) = (&route.max_frame, &route.max_message)
            && (1..frame.value).contains(&message.value)
        {
            let remedy = "a frame is part of a message, so max_frame never counts; make it smaller";
            self.notes.warning(&message.place, "is less than max_frame", remedy);
        }
        Some(Rule {
            label: label(route),
            pools: pools?,
            relay,
            max_frame: set(&route.max_frame, 0),
            max_message: set(&route.max_message, 0),
            messages_per_second: set(&route.messages_per_second, 0),
            origins,
        })
    }

    fn shares(&self, route: &Route) -> Option<Vec<Share>> {
        match (&route.pool, &route.split) {
            (Some(pool), None) => self.pool_index(pool).map(|pool| vec![Share { pool, weight: 1 }]),
            (None, Some(split)) => {
                if split.value.iter().all(|(_, weight)| weight.value == 0)
                    && !self.notes.is_spoken_for(&split.place.key)
                {
                    let remedy = "give at least one pool a share, as { a = 95, b = 5 }";
                    self.notes.mistake(&split.place, "shares nothing out", remedy);
                }
                let share = |(name, weight): &(At<String>, At<u32>)| {
                    self.pool_index(name).map(|pool| Share { pool, weight: weight.value })
                };
                let shares: Vec<_> = split.value.iter().map(share).collect();
                shares.into_iter().collect()
            }
            (Some(_), Some(split)) => {
                self.notes.mistake(&split.place, "stands beside pool", "keep pool or split");
                None
            }
            (None, None) => {
                let split = format!("{}.split", route.place.key);
                if !self.notes.is_spoken_for(&split) {
                    let remedy = "write pool = \"…\" or split = { a = 95, b = 5 }";
                    self.notes.missing(&route.place, "pool", remedy);
                }
                None
            }
        }
    }

    /// An empty list is as good as none: everyone may come.
    fn origins(&self, route: &Route) -> Option<Origins> {
        let list = route.origins.as_ref().filter(|list| !list.value.is_empty())?;
        let mut origins = Origins::default();
        for at in &list.value {
            if let Err(remedy) = origins.allow(&at.value) {
                self.notes.mistake(&at.place, format!("found {:?}", at.value), remedy);
            }
        }
        Some(origins)
    }
}

/// Host and path as written, then the conditions, so that no two routes have the same label.
fn label(route: &Route) -> Arc<str> {
    let mut label = route.host.as_ref().map_or_else(String::new, |at| at.value.clone());
    label.push_str(&told(route.path.as_ref().map_or("/", |at| at.value.as_str()), ' '));
    let mut add = |kind: &str, text: &str| {
        label.push_str(&format!(" {kind}={text}"));
    };
    if let Some(protocol) = &route.protocol {
        add("protocol", &protocol.value);
    }
    let pair =
        |(name, value): &Pair| format!("{}:{}", told(&name.value, ':'), told(&value.value, ' '));
    route.query.iter().for_each(|it| add("query", &pair(it)));
    route.header.iter().for_each(|it| add("header", &pair(it)));
    Arc::from(label)
}

/// As written, or quoted where it could be taken for more than it is: for what follows a blank or
/// `end`, or for something quoted.
fn told(text: &str, end: char) -> String {
    let is_odd = |c: char| c == end || c == '"' || c.is_whitespace() || c.is_control();
    if text.contains(is_odd) { format!("{text:?}") } else { text.to_owned() }
}

const ADD: &str = "add [[listeners.X.routes]] with path and pool";
