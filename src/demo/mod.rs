//! `standpipe demo`: embedded echo servers, the real proxy before them, a few hundred clients and a
//! live table. It shows what the proxy does and is no measure of it; it never generates more load
//! than can be watched.

mod driver;
mod echo;
mod figures;
mod proxy;
mod scene;
mod screen;
mod socket;
mod table;
mod tally;
mod view;

use std::future::Future;
use std::io::{self, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval_at, sleep};

use crate::sys::process;

use driver::{Act, CROWD, Town};
use figures::Page;
use proxy::Proxy;
use scene::{Ports, Scene};
use screen::Screen;
use tally::{Seen, Tally};
use view::{Before, Moment, View, Weight, compare};

/// When the crowd comes: by then the cores' buffers have been in use, and what is added is its own.
const CROWD_AFTER: Duration = Duration::from_secs(5);

/// How long clients may take to leave before the proxy is ended.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// Runs until Ctrl-C, or for so many seconds.
///
/// # Errors
/// What kept it from starting, or ended it too soon.
pub fn run(seconds: Option<u64>) -> Result<(), String> {
    // Clients and servers are in this process: two descriptors for each connection.
    process::raise_file_limit().map_err(|error| format!("the limit of open files: {error}"))?;
    runtime()?.block_on(async {
        // First, so that a signal from now on does not leave the folder behind.
        let stops = Stops::listen().map_err(|error| format!("no signal handlers: {error}"))?;
        let (ports, notes) =
            Ports::choose().map_err(|error| format!("no free port on 127.0.0.1: {error}"))?;
        let (servers, scene) =
            set_scene(&ports).map_err(|error| format!("the demo's folder: {error}"))?;
        let mut proxy = Proxy::start(&scene)
            .map_err(|error| format!("the proxy cannot be started: {error}"))?;
        let mut demo = Demo::begin((ports, notes), stops, &scene, &mut proxy, servers).await?;
        let outcome = demo.watch(&mut proxy, seconds).await;
        demo.end(proxy, outcome).await
    })
}

fn set_scene(ports: &Ports) -> io::Result<(Vec<TcpListener>, Scene)> {
    let servers = echo::bind()?;
    let scene = Scene::set(ports, &echo::addresses(&servers)?)?;
    Ok((servers, scene))
}

/// A running demonstration.
struct Demo {
    ports: Ports,
    hints: String,
    screen: Screen,
    tally: Tally,
    act: watch::Sender<Act>,
    clients: thread::JoinHandle<()>,
    stops: Stops,
    begun: Instant,
    empty: Weight,
    /// Before the crowd came.
    uncrowded: Option<Weight>,
}

impl Demo {
    /// Waits for the proxy, then lets servers and clients begin.
    async fn begin(
        (ports, notes): (Ports, Vec<String>),
        mut stops: Stops,
        scene: &Scene,
        proxy: &mut Proxy,
        servers: Vec<TcpListener>,
    ) -> Result<Self, String> {
        let tls = driver::connector(&scene.certificate)?;
        on_a_thread("demo-servers", async move {
            match echo::serve(servers) {
                Ok(()) => std::future::pending().await,
                Err(error) => {
                    let _ = writeln!(io::stderr(), "the embedded servers cannot begin: {error}");
                }
            }
        })?;
        tokio::select! {
            ready = proxy.ready(ports.admin) => ready?,
            () = stops.asked() => return Err("stopped before it began".to_owned()),
        }
        let page = Page::fetch(ports.admin).await.map_err(no_metrics)?;
        let tally = Tally::new()?;
        let (act, act_out) = watch::channel(Act::Talk);
        let town = Town { ports, tally: tally.clone(), tls, act: act_out };
        let clients = on_a_thread("demo-clients", driver::drive(town))?;
        let mut hints = table::hints(&ports, scene);
        for note in notes {
            hints.push_str(&note);
            hints.push('\n');
        }
        Ok(Self {
            ports,
            hints,
            screen: Screen::new(),
            tally,
            act,
            clients,
            stops,
            begun: Instant::now(),
            empty: Weight::of(&page),
            uncrowded: None,
        })
    }

    /// Shows a moment every second, until it is enough.
    async fn watch(&mut self, proxy: &mut Proxy, seconds: Option<u64>) -> Result<(), String> {
        let opening = format!("{}\n\n{}\n", table::title(), self.hints);
        if self.screen.say(&opening).is_err() {
            return Ok(());
        }
        let mut before = Before { seen: self.tally.look(), processor: 0.0 };
        let mut looked = self.begun;
        let second = Duration::from_secs(1);
        let mut tick = interval_at((self.begun + second).into(), second);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = self.stops.asked() => return Ok(()),
            }
            proxy.check()?;
            let page = Page::fetch(self.ports.admin).await.map_err(no_metrics)?;
            let seen = self.tally.look();
            let moment = self.moment(&seen, looked.elapsed());
            looked = Instant::now();
            let view = compare(&page, &seen, &before, moment);
            before = Before { seen, processor: page.processor() };
            if moment.age >= CROWD_AFTER && self.uncrowded.is_none() {
                self.uncrowded = Some(Weight::of(&page));
                self.act.send_replace(Act::Crowd);
            }
            // If the reader closed the other end of the pipe, the demo is over.
            let is_enough = seconds.is_some_and(|seconds| moment.age.as_secs() >= seconds);
            if self.show(&view).is_err() || is_enough {
                return Ok(());
            }
        }
    }

    fn moment(&self, seen: &Seen, time: Duration) -> Moment {
        let all_there = seen.crowd == CROWD as u64;
        let uncrowded = self.uncrowded.filter(|_| all_there);
        Moment { age: self.begun.elapsed(), time, empty: self.empty, uncrowded }
    }

    fn show(&mut self, view: &View) -> io::Result<()> {
        if self.screen.is_terminal() {
            self.screen.show(&table::full(view, &self.ports))
        } else {
            self.screen.say(&table::lines(view, &self.ports))
        }
    }

    /// The last look while everybody is still there, then clients leave and the proxy ends.
    async fn end(mut self, proxy: Proxy, outcome: Result<(), String>) -> Result<(), String> {
        self.screen.leave();
        outcome?;
        let moment = self.moment(&self.tally.look(), self.begun.elapsed());
        let page = Page::fetch(self.ports.admin).await.map_err(no_metrics)?;
        let seen = self.tally.look();
        self.act.send_replace(Act::Leave);
        let asked = Instant::now();
        while !self.clients.is_finished() && asked.elapsed() < LEAVE_WITHIN {
            sleep(Duration::from_millis(10)).await;
        }
        let ended = proxy.finish().await;
        // The whole time as one moment.
        let nothing = Before { seen: seen.clone(), processor: 0.0 };
        let view = compare(&page, &seen, &nothing, moment);
        // Nobody may be left to read it; it has ended all the same.
        let _ = self.screen.say(&table::summary(&view, &seen, &self.ports));
        ended
    }
}

/// What a user, a script or a closed terminal stops it by.
struct Stops([Signal; 3]);

impl Stops {
    fn listen() -> io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self([signal(SignalKind::interrupt())?, terminate, signal(SignalKind::hangup())?]))
    }

    async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Runs `work` on a thread and a runtime of its own, so that neither waits for the other's.
fn on_a_thread(
    name: &str,
    work: impl Future<Output = ()> + Send + 'static,
) -> Result<thread::JoinHandle<()>, String> {
    let runtime = runtime()?;
    let thread = thread::Builder::new().name(name.to_owned());
    let begun = thread.spawn(move || runtime.block_on(work));
    begun.map_err(|error| format!("a thread for {name}: {error}"))
}

fn runtime() -> Result<Runtime, String> {
    Builder::new_current_thread().enable_all().build().map_err(|e| format!("no runtime: {e}"))
}

fn no_metrics(error: io::Error) -> String {
    format!("the proxy's metrics could not be read: {error}")
}
