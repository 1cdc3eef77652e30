//! What finding a request's route costs, and finding the server its cookie names.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use standpipe::route::cookie::{Attributes, Cookie};
use standpipe::route::{Headers, Pattern, Request, Routes, Target};

struct Lines(Vec<(&'static str, String)>);

impl Headers for Lines {
    fn values<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        let named = move |line: &&(&str, String)| line.0.eq_ignore_ascii_case(name);
        self.0.iter().filter(named).map(|line| line.1.as_bytes())
    }
}

fn routes(count: usize) -> Routes {
    let pattern = |index: usize| {
        let host = format!("h{}.example.org", index % 10);
        Pattern::default().host(&host)?.path(&format!("/app/{index}"))
    };
    Routes::new((0..count).filter_map(|index| pattern(index).ok()).chain([Pattern::default()]))
}

fn find(c: &mut Criterion) {
    let mut group = c.benchmark_group("route");
    let headers = Lines(Vec::new());
    for count in [2, 1_000] {
        let routes = routes(count);
        for (name, target) in [
            ("plain", "/app/1/socket?id=7"),
            ("escaped", "/app/1/caf%C3%A9?id=7"),
            ("deep", "/a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q/r/s/t"),
        ] {
            group.bench_function(BenchmarkId::new(name, count), |b| {
                b.iter(|| {
                    let target = Target::read(black_box(target.as_bytes()))?;
                    routes.find(&Request { host: b"h1.example.org:443", target, headers: &headers })
                });
            });
        }
    }
    group.finish();
}

fn cookie(c: &mut Criterion) {
    let servers: Vec<String> = (0..100).map(|n| format!("10.0.0.{n}:9000")).collect();
    let attributes = Attributes { path: "/", ..Attributes::default() };
    let key = b"a key of more than sixteen bytes";
    let cookie = Cookie::new("sp", &attributes, key, "chat", servers.iter().map(String::as_str));
    let pair = cookie.set_cookie_header(42).and_then(|line| line.split(';').next());
    let line = format!("a=b; theme=dark; {}; session=0123456789", pair.unwrap_or_default());
    let headers = Lines(vec![("Host", "h".to_owned()), ("Cookie", line)]);
    c.bench_function("route/cookie", |b| b.iter(|| cookie.find(black_box(&headers))));
}

criterion_group!(benches, find, cookie);
criterion_main!(benches);
