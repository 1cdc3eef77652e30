//! The plan as JSON, for people who ask the running process what it believes. Keys and key files
//! are shown as "(set)".

use serde_json::{Value, json};

use super::plan::{
    AcceptProxy, Drain, L7, Listener, LogConnections, LogFormat, OnDown, OnRemove, Plan, Pool,
    RelayUnit, Rule, SameSite, SendProxy, Server, ServerAddress, Service, Sticky, StickyCookie,
    Tls, UnknownName, WhenEmpty,
};
use super::units::show_duration;
use crate::balance::Policy;

/// The whole plan, in the names of the file.
pub fn render(plan: &Plan) -> Value {
    let named = |name: &str, value: Value| (name.to_owned(), value);
    let listeners = plan.listeners.iter().map(|it| named(&it.name, listener(it, plan)));
    let pools = plan.pools.iter().map(|it| named(&it.name, pool(it)));
    json!({
        "file": plan.file.display().to_string(),
        "runtime": {
            "workers": plan.runtime.workers,
            "admin": plan.runtime.admin.map_or_else(|| "off".to_owned(), |it| it.to_string()),
            "drain_delay": show_duration(plan.runtime.drain_delay),
            "drain_timeout": show_duration(plan.runtime.drain_timeout),
            "log": {
                "format": match plan.runtime.log.format {
                    LogFormat::Logfmt => "logfmt",
                    LogFormat::Json => "json",
                },
                "connections": match plan.runtime.log.connections {
                    LogConnections::Off => "off",
                    LogConnections::Sampled => "sampled",
                    LogConnections::All => "all",
                },
            },
        },
        "listeners": Value::Object(listeners.collect()),
        "pools": Value::Object(pools.collect()),
        "timeouts": timeouts(plan),
    })
}

fn timeouts(plan: &Plan) -> Value {
    let times = &plan.timeouts;
    json!({
        "handshake": show_duration(times.handshake),
        "connect": show_duration(times.connect),
        "idle": or_off(times.idle),
        "half_close": or_off(times.half_close),
        "request": or_off(times.request),
        "response": or_off(times.response),
        "keepalive": show_duration(times.keepalive),
        "stall": or_off(times.stall),
        "user_timeout": or_off(times.user_timeout),
        "tcp_keepalive": or_off(times.tcp_keepalive),
    })
}

fn listener(listener: &Listener, plan: &Plan) -> Value {
    let mut shown = json!({
        "bind": listener.bind.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "trusted": listener.trusted.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "accept_proxy": match listener.accept_proxy {
            None => "off",
            Some(AcceptProxy::V1) => "v1",
            Some(AcceptProxy::V2) => "v2",
            Some(AcceptProxy::Any) => "any",
        },
        "when_empty": match listener.when_empty {
            WhenEmpty::Close => "close",
            WhenEmpty::Refuse => "refuse",
        },
        "max_connections": listener.max_connections,
        "max_per_source": listener.max_per_source,
        "tls": listener.tls.as_ref().map(tls),
    });
    match &listener.service {
        Service::L4 { pool } => {
            shown["mode"] = json!("l4");
            shown["pool"] = json!(pool_name(plan, *pool));
        }
        Service::L7(service) => {
            shown["mode"] = json!("l7");
            l7(service, plan, &mut shown);
        }
    }
    shown
}

fn l7(l7: &L7, plan: &Plan, shown: &mut Value) {
    shown["ping"] = match &l7.ping {
        None => json!("off"),
        Some(ping) => json!({
            "every": show_duration(ping.every),
            "timeout": show_duration(ping.timeout),
            "server": ping.server,
        }),
    };
    shown["http"] = json!({
        "head": l7.http.head_bytes,
        "headers": l7.http.headers,
        "target": l7.http.target_bytes,
    });
    shown["errors"] = json!(if l7.http.json_errors { "json" } else { "text" });
    shown["routes"] = l7.rules.iter().map(|it| rule(it, plan)).collect();
}

fn rule(rule: &Rule, plan: &Plan) -> Value {
    let share = |share: &super::plan::Share| {
        (pool_name(plan, share.pool).to_owned(), Value::from(share.weight))
    };
    json!({
        "route": &*rule.label,
        "pools": Value::Object(rule.pools.iter().map(share).collect()),
        "relay": match rule.relay {
            RelayUnit::Frames => "frames",
            RelayUnit::Bytes => "bytes",
        },
        "max_frame": rule.max_frame,
        "max_message": rule.max_message,
        "messages_per_second": rule.messages_per_second,
        "origins": rule.origins.as_ref().map(|it| it.written().collect::<Vec<_>>()),
    })
}

fn tls(tls: &Tls) -> Value {
    let certificate = |files: &super::plan::CertificateFiles| {
        let cert = files.cert.display().to_string();
        json!({ "cert": cert, "key": SET })
    };
    json!({
        "certificates": tls.certificates.iter().map(certificate).collect::<Vec<_>>(),
        "unknown_name": match tls.unknown_name {
            UnknownName::Default => "default",
            UnknownName::Refuse => "refuse",
        },
        "alpn": tls.alpn,
        "client_ca": tls.client_ca.as_ref().map(|ca| {
            json!({ "file": ca.file.display().to_string(), "required": ca.required })
        }),
        "client_headers": tls.client_headers.as_ref().map(|headers| {
            json!({ "subject": headers.subject, "fingerprint": headers.fingerprint })
        }),
        "ticket_keys": tls.ticket_keys.as_ref().map(|_| SET),
        "key_log": tls.key_log,
        "handshakes_in_flight": tls.handshakes_in_flight,
        "handshakes_per_second": tls.handshakes_per_second,
    })
}

fn pool(pool: &Pool) -> Value {
    let bounded = match pool.policy {
        Policy::SourceHash { bounded } => bounded.map_or(json!(false), |factor| json!(factor)),
        _ => Value::Null,
    };
    json!({
        "balance": pool.policy.name(),
        "bounded": bounded,
        "sticky": pool.sticky.as_ref().map(sticky),
        "servers": pool.servers.iter().map(server).collect::<Vec<_>>(),
        "health": pool.health.as_ref().map_or(json!("off"), |health| json!({
            "every": show_duration(health.every),
            "timeout": show_duration(health.timeout),
            "rise": health.rise,
            "fall": health.fall,
            "http": health.http,
        })),
        "slow_start": show_duration(pool.slow_start),
        "source": pool.source.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "send_proxy": match pool.send_proxy {
            None => "off",
            Some(SendProxy::V1) => "v1",
            Some(SendProxy::V2) => "v2",
        },
        "on_down": match pool.on_down {
            OnDown::Keep => "keep",
            OnDown::Drain => "drain",
            OnDown::Close => "close",
        },
        "on_remove": match pool.on_remove {
            OnRemove::Keep => "keep",
            OnRemove::Drain => "drain",
            OnRemove::Close => "close",
        },
        "drain": match pool.drain {
            Drain::Rate(rate) => json!({ "rate": rate }),
            Drain::Window(window) => json!({ "window": show_duration(window) }),
        },
        "tls": pool.tls.as_ref().map(|tls| json!({
            "ca": tls.ca.as_ref().map(|file| file.display().to_string()),
            "server_name": tls.server_name,
            "client_cert": tls.client_cert.as_ref().map(|it| it.cert.display().to_string()),
            "client_key": tls.client_cert.as_ref().map(|_| SET),
            "verify": !tls.insecure,
        })),
        "idle_connections": pool.idle_connections,
    })
}

fn server(server: &Server) -> Value {
    json!({
        "name": &*server.name,
        "address": &*server.written,
        "resolved": match &server.address {
            ServerAddress::Inet(address) => address.to_string(),
            ServerAddress::Unix(path) => format!("unix:{}", path.display()),
        },
        "weight": server.weight,
        "max_connections": server.max_connections,
        "drain": server.draining,
    })
}

fn sticky(sticky: &Sticky) -> Value {
    match sticky {
        Sticky::Header(name) => json!({ "header": name }),
        Sticky::Query(name) => json!({ "query": name }),
        Sticky::Cookie(cookie) => sticky_cookie(cookie),
    }
}

fn sticky_cookie(cookie: &StickyCookie) -> Value {
    json!({
        "cookie": cookie.name,
        "key": cookie.key.as_ref().map_or("(random)", |_| SET),
        "path": cookie.path,
        "domain": cookie.domain,
        "secure": cookie.secure,
        "http_only": cookie.http_only,
        "same_site": cookie.same_site.map(|it| match it {
            SameSite::Strict => "strict",
            SameSite::Lax => "lax",
            SameSite::None => "none",
        }),
        "max_age": cookie.max_age.map(show_duration),
    })
}

fn or_off(duration: Option<std::time::Duration>) -> String {
    duration.map_or_else(|| "off".to_owned(), show_duration)
}

fn pool_name(plan: &Plan, index: usize) -> &str {
    plan.pools.get(index).map_or("", |pool| &*pool.name)
}

const SET: &str = "(set)";
