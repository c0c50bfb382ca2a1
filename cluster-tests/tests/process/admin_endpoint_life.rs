//! The admin endpoint while processes come and go: learning, pausing, reloads.

use std::net::TcpListener;
use std::path::PathBuf;

use cluster_tests::scrape::{fetch, samples, scrape};
use cluster_tests::wait::until_true;
use cluster_tests::{Launch, Proxy};
use rustix::process::Signal;

use crate::common::haproxy_lacks;

fn socket(proxy: &Proxy) -> PathBuf {
    proxy.dir().join("admin.sock")
}

fn status(proxy: &Proxy, path: &str) -> u16 {
    fetch(&socket(proxy), path).status
}

const CONFIG: &str = "
global
  stats socket {{cli}} level admin
  admin bind unix@{{dir}}/admin.sock
  admin bind 127.0.0.1:{{port:admin}}
defaults
  mode http
  timeout client 10s
frontend fe
  bind 127.0.0.1:{{port:fe}}
  http-request return status 200
";

#[test]
fn a_node_that_learns_is_not_ready() {
    if haproxy_lacks("has no admin endpoint") {
        return;
    }
    // Takes connections and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").expect("a port");
    let peers = "
peers p
  learn-timeout 10m
  bind 127.0.0.1:{{port:peers}}
  server me
  server other {{other}}
  table t type ip size 1k store gpc0
";
    let proxy = Launch::new(&format!("{CONFIG}{peers}"))
        .set("other", mute.local_addr().expect("bound"))
        .arg("-L")
        .arg("me")
        .arg("-db")
        .arg("-f")
        .arg("test.cfg")
        .start();
    let answer = fetch(&socket(&proxy), "/readyz");
    assert_eq!(answer.status, 503);
    assert!(answer.text().starts_with("learning: "), "{answer:?}");
    assert_eq!(status(&proxy, "/livez"), 200);
    assert_eq!(
        samples(&scrape(&socket(&proxy)))["remora_process_ready"],
        0.0
    );
    // Nobody to learn from.
    drop(mute);
    until_true("ready", || status(&proxy, "/readyz") == 200);
}

#[test]
fn a_paused_process_is_not_ready() {
    if haproxy_lacks("has no admin endpoint") {
        return;
    }
    let proxy = Launch::new(CONFIG).start();
    until_true("ready", || status(&proxy, "/readyz") == 200);
    proxy.signal(Signal::TTOU);
    until_true("paused", || status(&proxy, "/readyz") == 503);
    assert_eq!(status(&proxy, "/livez"), 200);
    proxy.signal(Signal::TTIN);
    until_true("ready again", || status(&proxy, "/readyz") == 200);
}

#[test]
fn a_reload_is_not_seen_by_probes() {
    if haproxy_lacks("has no admin endpoint") {
        return;
    }
    let mut proxy = Launch::new(CONFIG)
        .arg("-W")
        .arg("-db")
        .arg("-f")
        .arg("test.cfg")
        .start();
    let started =
        |proxy: &Proxy| samples(&scrape(&socket(proxy)))["remora_process_start_time_seconds"];
    until_true("ready", || status(&proxy, "/readyz") == 200);
    for _ in 0..3 {
        let before = started(&proxy);
        proxy.signal(Signal::USR2);
        until_true("another worker answers", || {
            // At no time is there nobody, or somebody who is not ready.
            let answer = fetch(&socket(&proxy), "/readyz");
            assert_eq!(answer.status, 200, "{answer:?}");
            let mut client = cluster_tests::Client::connect(proxy.addr("admin"));
            let answer = client.get("/readyz").response().expect("an answer");
            assert_eq!(answer.status, 200, "{answer:?}");
            started(&proxy) != before
        });
    }
    proxy.signal(Signal::USR1);
    assert_eq!(proxy.wait().code(), Some(0));
}
