//! What a plan needs that is made rather than read: TLS contexts and sticky-cookie tokens.

use std::collections::HashMap;
use std::sync::Arc;

use crate::config::certificates::{FromClient, ToServer};
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

/// Cookie keys made up for pools whose file gives none. They live as long as the process, so a
/// reload sends nobody to another server.
#[derive(Debug, Default, Clone)]
pub struct RandomKeys(HashMap<Arc<str>, [u8; 32]>);

impl RandomKeys {
    /// The pool's key, made when first asked for.
    fn of(&mut self, pool: &Arc<str>) -> [u8; 32] {
        *self.0.entry(pool.clone()).or_insert_with(|| {
            tracing::warn!(
                pool = &**pool,
                "sticky.key is not set: a random key is used, so other nodes and the next start \
                 will not know the cookies of this one"
            );
            let mut key = [0; 32];
            // Chance that fails here would fail every TLS handshake too; the zero key would still
            // only tell servers apart.
            let _ = aws_lc_rs::rand::fill(&mut key);
            key
        })
    }
}

impl Material {
    /// Makes everything `plan` asks for.
    pub fn make(plan: &Plan, keys: &mut RandomKeys) -> Self {
        let cookies = plan.pools.iter().map(|pool| match &pool.sticky {
            Some(Sticky::Cookie(cookie)) => Some(Arc::new(tokens(pool, cookie, keys))),
            _ => None,
        });
        Self { cookies: cookies.collect(), ..Self::default() }
    }
}

fn tokens(pool: &Pool, cookie: &StickyCookie, keys: &mut RandomKeys) -> Cookie {
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
            random = keys.of(&pool.name);
            &random
        }
    };
    let servers = pool.servers.iter().map(|server| &*server.name);
    Cookie::new(&cookie.name, &attributes, key, &pool.name, servers)
}
