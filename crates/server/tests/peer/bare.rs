//! A server in a process of its own, so that its memory, time and descriptors can be read.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use casemate_codec::{Packet, Reason};

use super::{connect_silent, Peer, Wire, PASSWORD, PATIENCE, USER};

/// A server in a process of its own, which lets everybody in.
pub struct Bare {
    child: Child,
    is_killed: bool,
    pub address: SocketAddr,
    /// Where it speaks TLS, with `--tls-port`.
    pub tls_address: Option<SocketAddr>,
    /// Where it speaks WebSocket, with `--ws-port`.
    pub websocket: Option<SocketAddr>,
}

impl Bare {
    pub fn start(descriptors: usize, options: &str) -> Bare {
        let mut path = std::env::current_exe().unwrap();
        path.pop();
        path.pop();
        path.push("examples/bare");
        assert!(
            path.exists(),
            "cargo build -p casemate-server --example bare makes {path:?}"
        );
        let line = format!(
            "ulimit -n {descriptors} && exec {} --port 0 --anonymous --until-eof {options}",
            path.display()
        );
        let mut child = Command::new("sh")
            .args(["-c", &line])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.as_mut().unwrap())
            .read_line(&mut ready)
            .unwrap();
        let port = |name: &str| {
            let text = ready.split(&format!("\"{name}\":")).nth(1).unwrap();
            text.split(',').next().unwrap().parse().ok()
        };
        let address = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Bare {
            address: address(port("port").unwrap()),
            tls_address: port("tls_port").map(address),
            websocket: port("ws_port").map(address),
            child,
            is_killed: false,
        }
    }

    /// One that keeps in this folder what must be kept.
    pub fn with_store(folder: &Path, shards: usize) -> Bare {
        // Whoever is nobody has no session that outlives a connection.
        let user = format!("{USER}:{}", String::from_utf8_lossy(PASSWORD));
        let folder = folder.display();
        let options = format!("--user '{user}' --shards {shards} --store {folder}");
        Bare::start(1_024, &options)
    }

    /// A plain connection that has said nothing.
    pub fn wire(&self) -> Wire {
        Wire::plain(self.address)
    }

    /// Ends it as the system does when memory is short: at once, whatever it is doing.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.is_killed = true;
    }

    /// Connects without proof, which this server allows.
    pub fn greet(&self, client_id: &str) -> Peer {
        Bare::greet_over(Wire::plain(self.address), client_id)
    }

    /// The same over another wire.
    pub fn greet_over(wire: Wire, client_id: &str) -> Peer {
        let mut peer = Peer::new(wire);
        peer.send(&Packet::Connect(connect_silent(client_id)));
        assert_eq!(peer.connack(), Reason::Success);
        peer
    }

    /// Resident memory, KiB.
    pub fn resident_kib(&self) -> usize {
        self.memory_kib("VmRSS:")
    }

    /// The most that was resident at any time, KiB: an allocator that gives memory back late does
    /// not move it.
    pub fn resident_kib_peak(&self) -> usize {
        self.memory_kib("VmHWM:")
    }

    fn memory_kib(&self, name: &str) -> usize {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.child.id()))
            .unwrap()
            .count()
    }

    /// Waits until the server has no more descriptors than this.
    pub fn wait_for_descriptors(&self, most: usize) {
        let until = Instant::now() + PATIENCE;
        while self.descriptors() > most {
            assert!(Instant::now() < until, "{} are open", self.descriptors());
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Time of the processor that it has used, in ticks of 10 ms.
    pub fn processor_ticks(&self) -> u64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat
            .rsplit(')')
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if let Ok(Some(status)) = self.child.try_wait() {
                assert!(status.success() || self.is_killed || thread::panicking());
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
