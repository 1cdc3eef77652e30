//! What the admin face is told: readiness, pools and the configuration in force, as JSON.

use std::time::SystemTime;

use serde_json::{Value, json};

use crate::config;
use crate::config::plan::ServerAddress;

use super::admin::{Answer, Ask, What};
use super::drain::Step;
use super::fleet::Ward;
use super::{Control, metrics};

impl Control {
    pub(super) fn answer(&mut self, ask: Ask) -> Step {
        let answer = match ask.what {
            What::Metrics => Answer::Text(metrics::page(self)),
            What::Ready => self.ready(),
            What::Pools => Answer::Json(self.pools()),
            What::Config => Answer::Json(self.config()),
        };
        // The client that asked may have left.
        let _ = ask.reply.send(answer);
        Step::Wait
    }

    fn ready(&self) -> Answer {
        let value = json!({
            "ready": self.is_ready(),
            "phase": self.phase.name(),
            "connections": self.live(),
        });
        if self.is_ready() { Answer::Json(value) } else { Answer::Unready(value) }
    }

    fn pools(&self) -> Value {
        let pools = self.fleet.wards.iter().map(|ward| {
            json!({
                "name": &*ward.plan.name,
                "balance": ward.plan.policy.name(),
                "usable": ward.group.usable(),
                "connections": self.fleet.registry.live(&ward.ids),
                "servers": self.servers(ward),
            })
        });
        json!({ "pools": pools.collect::<Vec<_>>(), "leaving": self.leaving() })
    }

    fn servers(&self, ward: &Ward) -> Vec<Value> {
        let members = ward.plan.servers.iter().zip(ward.group.members());
        let server = members.map(|(server, member)| {
            json!({
                "name": &*server.name,
                "address": shown(&server.address),
                "state": member.state.name(),
                "weight": server.weight,
                "share": member.share,
                "max_connections": server.max_connections,
                "connections": self.fleet.registry.known(member.id).live(),
                "failed_connects": self.fleet.registry.known(member.id).dial_failures(),
                "last_fault": self.check_faults.get(&member.id),
            })
        });
        server.collect()
    }

    /// Servers no longer in the file that still carry connections.
    fn leaving(&self) -> Vec<Value> {
        let servers = self.fleet.registry.servers();
        let left = servers.filter(|(id, known)| known.live() > 0 && self.fleet.ward(*id).is_none());
        let value = left.map(|(_, known)| {
            json!({
                "pool": &*known.pool,
                "name": &*known.name,
                "address": shown(&known.address),
                "connections": known.live(),
            })
        });
        value.collect()
    }

    fn config(&self) -> Value {
        let error = self
            .reloads
            .last_error
            .as_ref()
            .map(|(when, what)| json!({ "at": time(*when), "mistakes": what }));
        json!({
            "file": self.fleet.plan.file,
            "snapshot": self.fleet.version(),
            "last_error": error,
            "config": config::render(&self.fleet.plan),
        })
    }
}

fn shown(address: &ServerAddress) -> String {
    match address {
        ServerAddress::Inet(address) => address.to_string(),
        ServerAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}
