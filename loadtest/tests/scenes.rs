//! Every scene once, small: each shows what it is for.

mod common;

use common::{Echo, load, measure, number, one_of_five, said};

const CALM: [&str; 2] = ["--lag-bound", "1s"];

#[test]
fn idle_weighs_the_target_at_each_step() {
    let echo = Echo::start(&["tcp://127.0.0.1:0"]);
    let run = measure(&[
        "idle",
        echo.url(),
        "-c",
        "300",
        "--steps",
        "100,200",
        "--hold",
        "100ms",
        "--speak",
        "300ms",
        "--pid",
        &echo.pid(),
    ]);
    assert_eq!(number(&run, "/counts/received"), 100.0 + 200.0 + 300.0);
    let weighings = run["target"]["weighings"].as_array().unwrap();
    let at: Vec<u64> = weighings.iter().map(|one| one["connections"].as_u64().unwrap()).collect();
    assert_eq!(at, [100, 100, 200, 200, 300, 300]);
    assert!(weighings[5]["look"]["files"].as_u64().unwrap() >= 300);
    assert_eq!(number(&run, "/errors_total"), 0.0);
}

#[test]
fn bulk_counts_every_byte_in_each_direction() {
    for (manner, direction) in [("echo", "both"), ("sink", "up"), ("source", "down")] {
        for scheme in ["tcp", "ws"] {
            let echo = Echo::start(&[&format!("{scheme}://127.0.0.1:0"), "--manner", manner]);
            let run = measure(&[
                "bulk",
                echo.url(),
                "-c",
                "3",
                "--direction",
                direction,
                "--duration",
                "1500ms",
                "--warmup",
                "100ms",
                "--size",
                "64KiB",
            ]);
            assert_eq!(number(&run, "/errors_total"), 0.0, "{scheme} {direction}: {run}");
            assert!(number(&run, "/counts/received") > 10.0, "{scheme} {direction}: {run}");
            assert!(number(&run, "/extra/gigabits_per_second") > 0.01);
            if direction != "down" {
                assert_eq!(number(&run, "/counts/sent"), number(&run, "/counts/received"));
            }
        }
    }
}

#[test]
fn a_storm_ends_when_all_are_back() {
    let echo = Echo::start(&["ws://127.0.0.1:0"]);
    let run = measure(
        &[
            &["storm", echo.url(), "-c", "200", "--connect-rate", "1000"][..],
            &["--storms", "2", "--calm", "300ms"],
            &CALM,
        ]
        .concat(),
    );
    assert_eq!(number(&run, "/counts/opened"), 600.0);
    // 200 connections at 1,000 a second are back after a fifth of a second.
    let back = number(&run, "/extra/seconds_until_all_were_back");
    assert!((0.15..5.0).contains(&back), "{back} s");
    assert_eq!(number(&run, "/lost"), 0.0);
}

#[test]
fn slow_readers_stop_and_the_others_do_not() {
    let echo = Echo::start(&["tcp://127.0.0.1:0"]);
    let run = measure(
        &[
            &["slow", echo.url(), "-c", "40", "--share", "10%", "--rate", "400", "--size", "64KiB"]
                [..],
            &["--duration", "2s", "--reads", "0", "--drain", "1s"],
            &CALM,
        ]
        .concat(),
    );
    assert!(number(&run, "/counts/odd_unanswered") > 4.0, "{run}");
    assert_eq!(number(&run, "/errors_total"), 0.0, "{run}");
    assert_eq!(number(&run, "/counts/measured_sent"), number(&run, "/counts/measured_received"));
}

#[test]
fn of_few_talkers_only_a_share_is_slow() {
    let echo = Echo::start(&["tcp://127.0.0.1:0"]);
    let slow = ["slow", echo.url(), "-c", "100", "--active", "10%", "--share", "10%"];
    let times = ["--rate", "200", "--duration", "1s", "--drain", "1s"];
    let run = measure(&[&slow[..], &times, &CALM].concat());
    // Of ten talkers one is slow: nine tenths of the messages are measured.
    assert_eq!(number(&run, "/intended_rate"), 180.0, "{run}");
    assert_eq!(number(&run, "/counts/measured_sent"), 180.0, "{run}");
    assert_eq!(number(&run, "/counts/measured_received"), 180.0, "{run}");
}

#[test]
fn who_vanishes_is_still_open_at_the_target() {
    let echo = Echo::start(&["tcp://127.0.0.1:0"]);
    let run = measure(
        &[
            &["halfopen", echo.url(), "-c", "50", "--share", "20%", "--after", "1s"][..],
            &["--duration", "2s", "--pid", &echo.pid()],
            &CALM,
        ]
        .concat(),
    );
    assert_eq!(number(&run, "/extra/connections_vanished"), 10.0);
    // An echo has no timeout: it keeps them all, which is what the scene is there to show.
    let before = number(&run, "/extra/target_files_before");
    let after = number(&run, "/extra/target_files_after");
    assert!((before - after).abs() <= 2.0, "{before} files, then {after}");
    assert_eq!(number(&run, "/errors_total"), 0.0, "{run}");
}

#[test]
fn servers_tell_their_names() {
    let echo =
        Echo::start(&["tcp://127.0.0.1:0", "ws://127.0.0.1:0", "--name", "red", "--name", "blue"]);
    let run = measure(&["nat", &echo.urls[0], "-c", "60", "--stay", "300ms"]);
    assert_eq!(number(&run, "/servers/red"), 60.0);
    assert_eq!(number(&run, "/extra/busiest_share_percent"), 100.0);
    // The servers that answered do not tell how many there are to choose from.
    assert!(run["extra"]["busiest_times_fair_share"].is_null(), "{run}");
    let run = measure(&["nat", &echo.urls[1], "-c", "60", "--stay", "300ms", "--servers", "5"]);
    assert_eq!(number(&run, "/servers/blue"), 60.0);
    assert_eq!(number(&run, "/extra/busiest_times_fair_share"), 5.0);
    assert_eq!(number(&run, "/lost"), 0.0);
}

#[test]
fn churn_opens_at_its_rate_and_resumes_tls() {
    let echo = Echo::start(&["wss://127.0.0.1:0", "tcp://127.0.0.1:0"]);
    let times = ["--duration", "1s", "--warmup", "300ms"];
    let plain = ["churn", &echo.urls[1], "-c", "50", "--rate", "300"];
    one_of_five(|| {
        let run = measure(&[&plain[..], &times].concat());
        assert_eq!(number(&run, "/errors_total"), 0.0, "{run}");
        assert!(number(&run, "/connect/p99") > 0.0);
        let rate = number(&run, "/extra/connections_per_second");
        if (290.0..310.0).contains(&rate) { Ok(()) } else { Err(format!("{rate} a second")) }
    });
    // Five at a time: of many that are opened in one lump none has a ticket yet.
    let secure = ["churn", &echo.urls[0], "-c", "5", "--rate", "60", "--insecure"];
    let run = measure(&[&secure[..], &times].concat());
    assert!(number(&run, "/extra/resumed_share_percent") > 50.0, "{run}");
    let run = measure(&[&secure[..], &times, &["--no-resumption"]].concat());
    assert_eq!(number(&run, "/extra/resumed_share_percent"), 0.0);
}

#[test]
fn lives_that_were_due_and_never_begun_are_counted_and_fail_the_run() {
    // Nobody is answered while the run lasts: the first five keep their slots to the end.
    let echo = Echo::start(&["tcp://127.0.0.1:0", "--delay", "60s"]);
    let churn = ["churn", echo.url(), "-c", "5", "--rate", "100", "--duration", "500ms"];
    let times = ["--warmup", "0s", "--lag-bound", "10s"];
    let run = measure(&[&churn[..], &times].concat());
    assert_eq!(number(&run, "/counts/undialled"), 45.0, "{run}");
    assert_eq!(number(&run, "/extra/connections_per_second"), 10.0, "{run}");
    assert!(number(&run, "/errors_total") >= 45.0, "{run}");
    assert!(number(&run, "/lag/samples") <= 5.0, "{run}");
    let output = load(&[&churn[..], &times, &["--expect", "achieved>=99%"]].concat());
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("45 × connect: due and never dialled"), "{text}");
    assert!(text.contains("FAILED: expected achieved>=99%, found 10.000 %"), "{text}");
}

#[test]
fn a_life_that_waits_for_a_slot_has_all_its_time_to_connect() {
    // One slot, six lives of some 400 ms: the last is dialled two seconds after it was due.
    let echo = Echo::start(&["tcp://127.0.0.1:0", "--delay", "400ms"]);
    let churn = ["churn", echo.url(), "-c", "1", "--rate", "10", "--duration", "600ms"];
    let run = measure(&[&churn[..], &["--warmup", "0s", "--connect-timeout", "1s"]].concat());
    assert_eq!(number(&run, "/counts/opened"), 6.0, "{run}");
    assert_eq!(number(&run, "/errors_total"), 0.0, "{run}");
    // The wait is in the connect time, and is not the generator's lag.
    assert!(number(&run, "/connect/max") > 1e9, "{run}");
    assert!(number(&run, "/lag/max") < 1e9, "{run}");
}

#[test]
fn a_goodbye_that_is_not_answered_does_not_hold_a_slot_for_ever() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tcp://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        // Kept open, whatever the other side does.
        let _kept: Vec<_> = listener.incoming().map_while(Result::ok).collect();
    });
    let churn = ["churn", &url, "-c", "3", "--rate", "10", "--messages", "0"];
    let times = ["--duration", "1200ms", "--warmup", "0s", "--connect-timeout", "300ms"];
    let run = measure(&[&churn[..], &times].concat());
    assert_eq!(number(&run, "/counts/opened"), 12.0, "{run}");
    assert!(number(&run, "/counts/unclosed") >= 9.0, "{run}");
    let named = number(&run, "/errors/close: our goodbye was not answered in time");
    assert_eq!(named, number(&run, "/counts/unclosed"));
}

#[test]
fn an_audit_tells_what_a_command_broke() {
    let echo = Echo::start(&["ws://127.0.0.1:0"]);
    let around =
        ["--before", "300ms", "--after", "300ms", "--drain", "300ms", "--expect", "errors==0"];
    let audit = |command: &str| {
        let fixed = ["audit", echo.url(), "-c", "30", "--rate", "300", "--during", command];
        load(&[&fixed[..], &around, &CALM].concat())
    };
    let output = audit("sleep 0.3");
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("0.000 connections closed"));
    let output = audit(&format!("kill -9 {}", echo.pid()));
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("30.000 connections closed"), "{text}");
    assert!(text.contains("FAILED: expected errors==0"), "{text}");
}

#[test]
fn everything_over_tls_too() {
    let echo = Echo::start(&["wss://127.0.0.1:0", "tls://127.0.0.1:0"]);
    for url in &echo.urls {
        let run = measure(
            &[
                &[
                    "run",
                    url,
                    "-c",
                    "20",
                    "--rate",
                    "400",
                    "--duration",
                    "500ms",
                    "--warmup",
                    "100ms",
                ][..],
                &["--insecure", "--size", "64:3,40KiB:1"],
                &CALM,
            ]
            .concat(),
        );
        assert_eq!(number(&run, "/errors_total"), 0.0, "{url}: {run}");
        assert_eq!(number(&run, "/counts/sent"), number(&run, "/counts/received"));
    }
}

#[test]
fn a_broadcast_reaches_everybody() {
    let echo =
        Echo::start(&["ws://127.0.0.1:0", "--manner", "broadcast", "--rate", "4", "--size", "64"]);
    let load = ["bulk", echo.url(), "-c", "50", "--direction", "down", "--size", "64"];
    one_of_five(|| {
        let run = measure(&[&load[..], &["--duration", "1s", "--warmup", "300ms"]].concat());
        assert_eq!(number(&run, "/errors_total"), 0.0);
        let (received, p50) = (number(&run, "/latency/samples"), run["latency"]["p50"].as_f64());
        if !(150.0..=250.0).contains(&received) || p50.is_none_or(|p50| p50 >= 200e6) {
            return Err(format!("{run}"));
        }
        Ok(())
    });
}
