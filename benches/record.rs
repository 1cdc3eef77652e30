//! What a TLS record costs: a burst of one small one, as a chat makes them, with the cipher's
//! context built for it; a burst of sixteen; a full one.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use standpipe::proto::record::{Keys, OVERHEAD_MAX, PLAIN_MAX, Role, Session, Suite};

const SUITES: [(&str, Suite, usize); 3] = [
    ("aes-128-gcm", Suite::Aes128Gcm, 32),
    ("aes-256-gcm", Suite::Aes256Gcm, 48),
    ("chacha20-poly1305", Suite::ChaCha20Poly1305, 32),
];

fn session(suite: Suite, secret: usize) -> Session {
    let keys = || Keys::tls13(suite, &vec![7; secret], 0).expect("a secret of the suite's length");
    Session::new(Role::Server, keys(), keys())
}

fn seal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal");
    for (name, suite, secret) in SUITES {
        for size in [128, PLAIN_MAX] {
            let mut session = session(suite, secret);
            let (plain, mut out) = (vec![1; size], vec![0; Session::sealed_max(size)]);
            group.throughput(Throughput::Bytes(size as u64));
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| session.seal(black_box(&plain), &mut out).expect("room"));
            });
        }
    }
}

/// The sealing of what is opened is part of the time; it is what [`seal`] says.
fn seal_and_open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal and open");
    for (name, suite, secret) in SUITES {
        for (size, records) in [(128, 1), (128, 16), (PLAIN_MAX, 1)] {
            let (mut ours, mut theirs) = (session(suite, secret), session(suite, secret));
            let plain = vec![1; size];
            let mut wire = vec![0; records * (size + 2 * OVERHEAD_MAX)];
            group.throughput(Throughput::Bytes((size * records) as u64));
            let id = BenchmarkId::new(name, format!("{records}x{size}"));
            group.bench_function(id, |bencher| {
                bencher.iter(|| {
                    let mut length = 0;
                    for _ in 0..records {
                        let sealed = theirs.seal(black_box(&plain), &mut wire[length..]);
                        length += sealed.expect("room").written;
                    }
                    let opened = ours.open(&mut wire[..length]);
                    assert_eq!((opened.used, opened.finish), (length, None));
                });
            });
        }
    }
}

criterion_group!(benches, seal, seal_and_open);
criterion_main!(benches);
