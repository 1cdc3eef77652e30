//! `tls.` of a listener, from files to what rustls serves with.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};

use super::chain::{Chain, certificates};
use super::heard::Ear;
use super::shelf::Shelf;
use super::tickets::{Purpose, purpose};
use super::{FromClient, Loaded, Part, Problem, Tickets, VERSIONS, provider};
use crate::config::plan::{ClientCa, Tls};

impl FromClient {
    /// Loads and proves everything the section names. All problems are told at once.
    ///
    /// # Errors
    /// Files that cannot be read or make no sense; nothing of the section may be used then.
    pub fn load(tls: &Tls, tickets: &Tickets) -> Result<Loaded<Self>, Vec<Problem>> {
        let (mut warnings, mut problems) = (Vec::new(), Vec::new());
        let mut chains = Vec::new();
        for (pair, files) in tls.certificates.iter().enumerate() {
            match Chain::load(files, pair, &mut warnings) {
                Ok(chain) => chains.push(chain),
                Err(all) => problems.extend(all),
            }
        }
        let clients = clients(tls.client_ca.as_ref())
            .map_err(|problem| problems.push(problem.of(Part::Authorities)));
        let purpose = clients.as_ref().map_or([0; 32], |(_, purpose)| *purpose);
        let ticketer = tickets
            .maker(tls.ticket_keys.as_deref(), purpose)
            .map_err(|problem| problems.push(problem.of(Part::Tickets)));
        let (Ok((verifier, _)), Ok(ticketer), true) = (clients, ticketer, problems.is_empty())
        else {
            return Err(problems);
        };

        let shelf = Arc::new(Shelf::new(&chains, tls.unknown_name));
        let mut server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(VERSIONS)
            .expect("the provider has suites of both versions")
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(shelf);
        server.alpn_protocols = tls.alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        server.enable_secret_extraction = true;
        server.key_log = Arc::new(Ear { lines: tls.key_log });
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.ticketer = ticketer;
        let value = Self {
            server: Arc::new(server),
            key_log: tls.key_log,
            handshakes_in_flight: tls.handshakes_in_flight,
            handshakes_per_second: tls.handshakes_per_second,
            certificates: chains.into_iter().map(|chain| chain.shown).collect(),
        };
        Ok(Loaded { value, warnings })
    }
}

/// What verifies clients' certificates, and the purpose that sessions have then.
fn clients(
    client_ca: Option<&ClientCa>,
) -> Result<(Arc<dyn ClientCertVerifier>, Purpose), Problem> {
    let Some(ClientCa { file, required }) = client_ca else {
        return Ok((WebPkiClientVerifier::no_client_auth(), purpose(None)));
    };
    let authorities = certificates(file)?;
    let mut roots = RootCertStore::empty();
    let remedy = "give the certificates of the authorities that sign clients' certificates";
    for authority in &authorities {
        roots.add(authority.clone()).map_err(|error| Problem::new(file, error, remedy))?;
    }
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
    let builder = if *required { builder } else { builder.allow_unauthenticated() };
    let verifier = builder.build().map_err(|error| Problem::new(file, error, remedy))?;
    Ok((verifier, purpose(Some((&authorities, *required)))))
}
