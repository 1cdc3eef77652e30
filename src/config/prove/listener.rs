//! Rules of `[listeners.NAME]`.

use std::sync::Arc;
use std::time::Duration;

use crate::config::certificates::{OfListener, Places};
use crate::config::plan::{
    CertificateFiles, ClientCa, ClientHeaders, HttpLimits, L7, Listener, Ping, Service, Tls,
    UnknownName, WhenEmpty,
};
use crate::config::problem::{At, Place, set};
use crate::config::written::{self, Mode};
use crate::proto::http::names;

use super::Proof;
use super::pool::transpose;

impl Proof<'_> {
    pub fn listener(&self, written: &written::Listener) -> Option<Listener> {
        let place = &written.name.place;
        let bind = self.bind(written);
        if written.mode.is_none() {
            let remedy = "write mode = \"l4\" (bytes) or \"l7\" (HTTP and WebSocket)";
            self.notes.missing(place, "mode", remedy);
        }
        let mode = written.mode.as_ref().map(|at| at.value);
        let service = match mode {
            Some(Mode::L4) => self.l4(written),
            Some(Mode::L7) => self.l7(written),
            None => self.without_mode(written),
        };
        let name: Arc<str> = Arc::from(written.name.value.as_str());
        // Without a mode the laxer rules, so that nothing is complained about in vain.
        let mode = mode.unwrap_or(Mode::L4);
        let tls = written.tls.as_ref().map(|tls| self.tls(tls, mode, Arc::clone(&name)));
        self.proxy_peers(written);
        Some(Listener {
            name,
            bind: bind?,
            service: service?,
            tls: transpose(tls)?,
            trusted: values(&written.trusted),
            accept_proxy: set(&written.accept_proxy, None),
            when_empty: set(&written.when_empty, WhenEmpty::Close),
            max_connections: set(&written.max_connections, 0),
            max_per_source: set(&written.max_per_source, 0),
        })
    }

    fn bind(&self, written: &written::Listener) -> Option<Vec<std::net::SocketAddr>> {
        let Some(bind) = &written.bind else {
            let remedy = "write bind = [\"0.0.0.0:8443\"]";
            self.notes.missing(&written.name.place, "bind", remedy);
            return None;
        };
        if bind.value.is_empty() && !self.notes.is_spoken_for(&bind.place.key) {
            self.notes.mistake(&bind.place, "is empty", "name at least one address and port");
        }
        bind.value.iter().for_each(|at| self.is_ours(at.value, &at.place));
        Some(bind.value.iter().map(|at| at.value).collect())
    }

    fn l4(&self, written: &written::Listener) -> Option<Service> {
        let belongs = "belongs to mode = \"l7\"";
        let remedy = "leave it out, or change the mode";
        for place in [
            written.routes.as_ref().map(|at| &at.place),
            written.ping.as_ref().map(|at| &at.place),
            written.http.as_ref().map(|at| &at.place),
            written.json_errors.as_ref().map(|at| &at.place),
            written.tls.as_ref().and_then(|tls| tls.client_headers.as_ref()).map(|at| &at.place),
        ]
        .into_iter()
        .flatten()
        {
            self.notes.mistake(place, belongs, remedy);
        }
        let Some(pool) = &written.pool else {
            self.notes.missing(&written.name.place, "pool", "name the pool its bytes go to");
            return None;
        };
        self.pool_index(pool).map(|pool| Service::L4 { pool })
    }

    fn l7(&self, written: &written::Listener) -> Option<Service> {
        if let Some(pool) = &written.pool {
            let remedy = "an l7 listener names pools in [[listeners.X.routes]]";
            self.notes.mistake(&pool.place, "belongs to mode = \"l4\"", remedy);
        }
        let routes = self.routes(written);
        let ping = self.ping(&written.ping);
        let http = self.http(written);
        let (routes, rules) = routes?;
        Some(Service::L7(L7 { routes, rules, ping, http }))
    }

    /// What is wrong whichever mode was meant.
    fn without_mode(&self, written: &written::Listener) -> Option<Service> {
        if let Some(pool) = &written.pool {
            self.pool_index(pool);
        }
        if written.routes.is_some() {
            self.routes(written);
        }
        None
    }

    fn ping(&self, written: &Option<At<Option<written::Ping>>>) -> Option<Ping> {
        let ping = set(written, Some(written::Ping::default()))?;
        Some(Ping {
            every: set(&ping.every, Duration::from_secs(25)),
            timeout: set(&ping.timeout, Duration::from_secs(20)),
            server: set(&ping.server, false),
        })
    }

    fn http(&self, written: &written::Listener) -> HttpLimits {
        let none = written::Http::default();
        let http = written.http.as_ref().map_or(&none, |at| &at.value);
        let bytes = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let limits = HttpLimits {
            head_bytes: bytes(set(&http.head, 32 << 10)),
            headers: set(&http.headers, 100) as usize,
            target_bytes: bytes(set(&http.target, 8 << 10)),
            json_errors: set(&written.json_errors, false),
        };
        if let Some(at) = &written.http
            && limits.target_bytes >= limits.head_bytes
            && !self.notes.is_spoken_for(&at.place.key)
        {
            let remedy = "the target is part of the head: make head larger or target smaller";
            self.notes.mistake(&at.place, "target does not fit into head", remedy);
        }
        limits
    }

    /// A PROXY header is believed of named peers only.
    fn proxy_peers(&self, written: &written::Listener) {
        let trusted = written.trusted.iter().flat_map(|list| &list.value);
        for everyone in trusted.filter(|at| at.value.prefix_len() == 0) {
            let remedy = "anyone may claim to be any client; list only the proxies in front";
            self.notes.warning(&everyone.place, "trusts everyone", remedy);
        }
        let Some(accept) = &written.accept_proxy else { return };
        let nobody = written.trusted.as_ref().is_none_or(|list| list.value.is_empty());
        let trusted = format!("{}.trusted", written.name.place.key);
        if accept.value.is_some() && nobody && !self.notes.is_spoken_for(&trusted) {
            let remedy = "list the balancers in front as trusted = [\"10.0.0.0/8\"]";
            self.notes.mistake(&accept.place, "nobody is trusted to send it", remedy);
        }
    }

    fn tls(&self, written: &written::Tls, mode: Mode, name: Arc<str>) -> Option<Tls> {
        let (certificates, pairs, all_pairs) = self.certificates(written);
        let alpn = self.alpn(written, mode);
        let client_ca = match &written.client_ca {
            Some((file, required)) => {
                self.file(file).map(|file| Some(ClientCa { file, required: *required }))
            }
            None => Some(None),
        };
        let client_headers = self.client_headers(written);
        let ticket_keys = match &written.ticket_keys {
            Some(file) => self.secret_file(file).map(Some),
            None => Some(None),
        };
        let key_log = set(&written.key_log, false);
        if let (true, Some(at)) = (key_log, &written.key_log) {
            let remedy = "whoever has the log reads the traffic; meant for debugging only";
            self.notes.warning(&at.place, "session keys go to SSLKEYLOGFILE", remedy);
        }
        let is_whole = all_pairs && client_ca.is_some() && ticket_keys.is_some();
        let tls = Tls {
            certificates,
            unknown_name: set(&written.unknown_name, UnknownName::Default),
            alpn,
            client_ca: client_ca.flatten(),
            client_headers,
            ticket_keys: ticket_keys.flatten(),
            key_log,
            handshakes_in_flight: set(&written.handshakes_in_flight, 256),
            handshakes_per_second: set(&written.handshakes_per_second, 0),
        };
        let places = Places {
            whole: written.place.clone(),
            pairs,
            authorities: written.client_ca.as_ref().map(|(file, _)| file.place.clone()),
            tickets: written.ticket_keys.as_ref().map(|file| file.place.clone()),
        };
        let section = OfListener { name, tls: tls.clone(), places };
        self.sections.borrow_mut().listeners.push(section);
        is_whole.then_some(tls)
    }

    /// The pairs whose files can be read, where each was named, and whether that is all of them.
    fn certificates(
        &self,
        written: &written::Tls,
    ) -> (Vec<CertificateFiles>, Vec<(Place, Place)>, bool) {
        let remedy = "write certificates = [{ cert = \"chain.pem\", key = \"key.pem\" }]";
        let Some(list) = &written.certificates else {
            self.notes.missing(&written.place, "certificates", remedy);
            return (Vec::new(), Vec::new(), false);
        };
        if list.value.is_empty() && !self.notes.is_spoken_for(&list.place.key) {
            self.notes.mistake(&list.place, "is empty", remedy);
        }
        let written = |at: &Option<At<String>>, place: &Place, key: &str| {
            if at.is_none() {
                self.notes.missing(place, key, "each certificate has cert and key files");
            }
        };
        let (mut proven, mut places) = (Vec::new(), Vec::new());
        for entry in &list.value {
            written(&entry.cert, &entry.place, "cert");
            written(&entry.key, &entry.place, "key");
            let cert = entry.cert.as_ref().and_then(|at| Some((self.file(at)?, at.place.clone())));
            let key =
                entry.key.as_ref().and_then(|at| Some((self.secret_file(at)?, at.place.clone())));
            let Some(((cert, of_cert), (key, of_key))) = cert.zip(key) else { continue };
            proven.push(CertificateFiles { cert, key });
            places.push((of_cert, of_key));
        }
        let all = proven.len() == list.value.len();
        (proven, places, all)
    }

    fn alpn(&self, written: &written::Tls, mode: Mode) -> Vec<String> {
        let Some(list) = &written.alpn else {
            return match mode {
                Mode::L7 => vec![HTTP.to_owned()],
                Mode::L4 => Vec::new(),
            };
        };
        for at in list.value.iter().filter(|at| mode == Mode::L7 && at.value != HTTP) {
            let found = format!("{:?} is not spoken here", at.value);
            let remedy =
                "an l7 listener speaks \"http/1.1\"; pass others through with mode = \"l4\"";
            self.notes.mistake(&at.place, found, remedy);
        }
        list.value.iter().map(|at| at.value.clone()).collect()
    }

    fn client_headers(&self, written: &written::Tls) -> Option<ClientHeaders> {
        let at = written.client_headers.as_ref()?;
        if written.client_ca.is_none() {
            let remedy = "set tls.client_ca: only a verified certificate has a subject";
            self.notes.mistake(&at.place, "no client certificate is asked for", remedy);
        }
        match (&at.value.subject, &at.value.fingerprint) {
            (None, None) if !self.notes.is_spoken_for(&at.place.key) => {
                let remedy = "name the header for subject or fingerprint, or leave it out";
                self.notes.mistake(&at.place, "is empty", remedy);
            }
            (Some(subject), Some(fingerprint))
                if names::is_same(&subject.value, &fingerprint.value) =>
            {
                let found = format!("{:?} is the header of the subject", fingerprint.value);
                let remedy = "choose another name ('-' and '_' are one to many servers)";
                self.notes.mistake(&fingerprint.place, found, remedy);
            }
            _ => {}
        }
        let text = |at: &Option<At<String>>| at.as_ref().map(|at| at.value.clone());
        let (subject, fingerprint) = (text(&at.value.subject), text(&at.value.fingerprint));
        Some(ClientHeaders { subject, fingerprint })
    }
}

fn values<T: Clone>(list: &Option<At<Vec<At<T>>>>) -> Vec<T> {
    list.iter().flat_map(|list| &list.value).map(|at| at.value.clone()).collect()
}

const HTTP: &str = "http/1.1";
