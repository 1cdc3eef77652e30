//! What goes with a plan: the TLS contexts that were loaded with it, and sticky-cookie tokens.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::certificates::{Contexts, FromClient, Tickets, ToServer};
use crate::config::plan::{Plan, Pool, SameSite, Sticky, StickyCookie};
use crate::route::cookie::{Attributes, Cookie};

/// The proven TLS and cookie material that goes with a plan.
#[derive(Debug, Default)]
pub struct Material {
    /// By listener.
    pub from_client: HashMap<Arc<str>, Arc<FromClient>>,
    /// One for each pool of the plan, as are `cookies`.
    pub to_server: Vec<Option<Arc<ToServer>>>,
    pub cookies: Vec<Option<Arc<Cookie>>>,
}

/// Secrets the process makes up where the file gives none. They live as long as it does, so that
/// a reload sends nobody to another server and forgets no session.
#[derive(Debug, Default, Clone)]
pub struct Keys {
    cookies: HashMap<Arc<str>, [u8; 32]>,
    tickets: Arc<Tickets>,
}

impl Keys {
    /// What seals session tickets that no file has keys for.
    pub fn tickets(&self) -> &Tickets {
        &self.tickets
    }

    /// A pool's cookie key, made when first asked for. That the file has none was said when it was
    /// read.
    ///
    /// # Errors
    /// The system has no chance to give: a key that can be guessed would be worse than none.
    fn cookie(&mut self, pool: &Arc<str>) -> Result<[u8; 32], String> {
        if let Some(key) = self.cookies.get(pool) {
            return Ok(*key);
        }
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| {
            format!("pools.{pool}.sticky: no random key can be made here; give it one as `key`")
        })?;
        self.cookies.insert(pool.clone(), key);
        Ok(key)
    }
}

impl Material {
    /// Makes what `plan` asks for beside the contexts that were loaded with it.
    ///
    /// # Errors
    /// Every pool that no key can be made for.
    pub fn make(plan: &Plan, contexts: Contexts, keys: &mut Keys) -> Result<Self, Vec<String>> {
        let Contexts { from_client, to_server } = contexts;
        let mut made = Self { from_client, ..Self::default() };
        let mut mistakes = Vec::new();
        for pool in &plan.pools {
            made.to_server.push(to_server.get(&pool.name).cloned());
            made.cookies.push(match &pool.sticky {
                Some(Sticky::Cookie(cookie)) => tokens(pool, cookie, keys)
                    .map_err(|mistake| mistakes.push(mistake))
                    .ok()
                    .map(Arc::new),
                _ => None,
            });
        }
        if mistakes.is_empty() { Ok(made) } else { Err(mistakes) }
    }

    /// Goes on with what `before`, the material of another plan, had for pools of the same names,
    /// where it was made of the same: a reload that changes no certificate disturbs no session.
    pub fn keep_alike(&mut self, plan: &Plan, before: &Self, plan_before: &Plan) {
        for (pool, made) in plan.pools.iter().zip(&mut self.to_server) {
            let known = plan_before.pools.iter().position(|known| known.name == pool.name);
            let old = known.and_then(|at| before.to_server.get(at)).and_then(Option::as_ref);
            if let Some(old) = old {
                *made = made.take().map(|made| made.or_as_before(old));
            }
        }
    }
}

fn tokens(pool: &Pool, cookie: &StickyCookie, keys: &mut Keys) -> Result<Cookie, String> {
    let attributes = Attributes {
        path: &cookie.path,
        domain: cookie.domain.as_deref(),
        secure: cookie.secure,
        http_only: cookie.http_only,
        same_site: cookie.same_site.map(|policy| match policy {
            SameSite::Strict => "Strict",
            SameSite::Lax => "Lax",
            SameSite::None => "None",
        }),
        max_age: cookie.max_age.map(|age| age.as_secs()),
    };
    let random;
    let key = match &cookie.key {
        Some(secret) => &*secret.0,
        None => {
            random = keys.cookie(&pool.name)?;
            &random
        }
    };
    let servers = pool.servers.iter().map(|server| &*server.written);
    Ok(Cookie::new(&cookie.name, &attributes, key, &pool.name, servers))
}
