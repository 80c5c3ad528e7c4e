//! The binary: flags, port file, signals.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_apipay-sandbox"));
    command
        .args(arguments)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

fn port_file(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::remove_file(&path).unwrap_or_default();
    path
}

fn wait_for<T>(what: &str, look: impl Fn() -> Option<T>) -> T {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(10) {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
}

fn errors(mut child: Child) -> String {
    let mut text = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    child.wait().unwrap();
    text
}

#[test]
fn it_tells_its_port_and_stops_when_told() {
    for name in ["-TERM", "-INT"] {
        let path = port_file(&format!("port{name}"));
        let mut child = command(&[
            "--listen",
            "127.0.0.1:0",
            "--port-file",
            path.to_str().unwrap(),
        ])
        .spawn()
        .unwrap();
        let text = wait_for("the port file", || std::fs::read_to_string(&path).ok());
        let addr: SocketAddr = text.trim().parse().unwrap();
        let _open = TcpStream::connect(addr).unwrap();
        signal(&child, name);
        assert_eq!(child.wait().unwrap().code(), Some(0), "{name}");
        assert!(TcpStream::connect(addr).is_err());
    }
}

#[test]
fn bad_flags_and_taken_addresses_are_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for (arguments, told) in [
        (["--speed", "fast"], "--speed"),
        (["--mode", "real"], "live, sandbox"),
        (["--listen", "somewhere"], "--listen"),
        (["--listen", &taken], "cannot listen on"),
    ] {
        let text = errors(command(&arguments).spawn().unwrap());
        assert!(text.contains(told), "{arguments:?}: {text}");
    }
}
