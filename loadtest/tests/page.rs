//! The page of a run, opened in a browser that has no network.

mod common;

use std::process::Command;

use common::{Echo, load, said, tool};

#[test]
fn the_page_shows_its_plots_offline() {
    let echo = Echo::start(&["ws://127.0.0.1:0"]);
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("run.html");
    let pid = echo.pid();
    let output = load(&[
        "run",
        echo.url(),
        "-c",
        "20",
        "--rate",
        "500",
        "--duration",
        "3s",
        "--warmup",
        "0s",
        "--html",
        page.to_str().unwrap(),
        "--pid",
        &pid,
        "--lag-bound",
        "1s",
    ]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = std::fs::read_to_string(&page).unwrap();
    // Nothing is fetched: no address of another place in any attribute.
    for attribute in ["src=", "href=", "@import", "url("] {
        assert!(!text.contains(attribute), "{attribute} in the page");
    }
    let Some(chromium) = tool("chromium") else { return };
    let profile = format!("--user-data-dir={}", folder.path().join("profile").display());
    let output = Command::new(chromium)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"])
        .args(["--disable-dev-shm-usage", &profile, "--dump-dom"])
        .arg(format!("file://{}", page.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    for title in [
        "Latency by percentile",
        "Latency over time",
        "Connections over time",
        "Messages over time",
        "Errors over time",
        "Target CPU",
        "Target memory",
    ] {
        assert!(dom.contains(&format!("aria-label=\"{title}\"")), "{title} is not shown: {dom}");
    }
    assert_eq!(dom.matches("<svg").count(), 7);
    assert!(dom.contains("time since the run began (s)") && dom.contains("99.9 %"));
}
