//! What can be typed, and help that teaches by example. It parses; it does nothing else.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// A load balancer for very many long-lived connections, WebSockets above all.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXAMPLES, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve what a configuration file says, until SIGTERM
    #[command(after_help = RUN)]
    Run {
        /// The configuration, in TOML
        file: PathBuf,
        /// Listen beside another standpipe of this user, to take over from it
        #[arg(long)]
        share_ports: bool,
    },
    /// Show everything at once on this machine: servers, proxy, clients and a live table
    #[command(after_help = DEMO)]
    Demo {
        /// End after so many seconds rather than at Ctrl-C
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        seconds: Option<u64>,
    },
    /// Read a configuration and say every mistake in it, or what it would do
    #[command(after_help = CHECK)]
    Check {
        /// The configuration, in TOML
        file: PathBuf,
    },
}

const EXAMPLES: &str = "\
Examples:
  standpipe demo                    see it work, without any file
  standpipe check edge.toml         every mistake of the file at once, with its line and a remedy
  standpipe run edge.toml           serve; SIGHUP or saving the file reloads it
  curl -s 127.0.0.1:9901/pools      who is up, and what each server carries
  curl -s 127.0.0.1:9901/metrics    the same and more, for Prometheus

A smallest configuration:
  [runtime]
  admin = \"127.0.0.1:9901\"

  [listeners.edge]
  bind = [\"0.0.0.0:7000\"]
  mode = \"l4\"
  pool = \"chat\"

  [pools.chat]
  servers = [\"10.0.0.1:9000\", \"10.0.0.2:9000\"]";

const RUN: &str = "\
Examples:
  standpipe run edge.toml
  standpipe run --share-ports new.toml    take over: then send SIGTERM to the old one

Signals:
  SIGHUP     read the file again; a bad file changes nothing
  SIGTERM    /ready turns 503, then listeners close, then pipes are given time to end
  SIGQUIT    the same
  SIGINT     the same without the delay before the listeners close
  a second SIGTERM, SIGQUIT or SIGINT ends everything now
  SIGUSR1, SIGUSR2   a line in the log and nothing else

Exit codes:
  0  ended as asked
  1  could not start (a port is taken, a right is missing, io_uring is forbidden), or every
     worker has failed
  2  the configuration has mistakes

Environment:
  STANDPIPE_LOG   filters log lines, for example STANDPIPE_LOG=warn
  SSLKEYLOGFILE   where TLS secrets go, if a listener says tls.key_log = true
  NOTIFY_SOCKET   where systemd is told that we serve, reload and end (sd_notify)";

const DEMO: &str = "\
Examples:
  standpipe demo                      a live table, until Ctrl-C
  standpipe demo --seconds 10         the same for ten seconds, then a summary
  standpipe demo --seconds 10 | cat   plain lines, no escape codes

It listens on 127.0.0.1 only, on ports 7000 (L4), 7001 (ws), 7443 (wss) and 9901 (admin), or on
free ones where those are taken. Certificate and configuration are made at start, in a folder that
is named, and removed at the end.";

const CHECK: &str = "\
Examples:
  standpipe check edge.toml && systemctl reload standpipe

Exit codes:
  0  the file can be run
  2  it has mistakes; all of them were printed";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_shows_examples_and_a_configuration() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("standpipe check edge.toml"));
        assert!(help.contains("[pools.chat]"));
    }
}
