//! A server without Python: for benchmarks and tests, never for production.
//!
//! `bare --port 1883 --user name:password` listens on loopback and gives every user all rights.
//! One JSON line on standard output says that it is ready. It runs until it is ended, or with
//! `--until-eof` until its standard input ends, and then says good-bye to its clients.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::{constant_time, digest};
use casemate_codec::QoS;
use casemate_engine::policy::{Operation, Policy, Role, Rule};
use casemate_server::{
    Answer, ClientCertificates, Durability, Listener, Options, Reason, Security, Server,
    StoreOptions, TlsOptions, TlsVersions, WebSocketOptions,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The role of every user.
const ROLE: &str = "all";

const USAGE: &str = "bare --port N [--ws-port N] [--tls-port N --cert FILE --key FILE [--ca FILE]]
     [--shards N] [--user NAME:PASSWORD …] [--anonymous] [--tls12] [--connections-max N]
     [--connect-deadline-ms N] [--sys-interval-s N] [--until-eof]
     [--store FOLDER] [--durability disk|os]";

struct Arguments {
    port: Option<u16>,
    ws_port: Option<u16>,
    tls_port: Option<u16>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
    ca: Option<PathBuf>,
    users: HashMap<String, String>,
    anonymous: bool,
    tls12: bool,
    until_eof: bool,
    store: Option<PathBuf>,
    durability: Durability,
    options: Options,
}

fn main() -> ExitCode {
    let outcome = Arguments::read(std::env::args().skip(1)).and_then(run);
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(cause) => {
            // There is nobody left who could fail to hear it.
            let _ = writeln!(std::io::stderr(), "error: {cause}\nusage: {USAGE}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), String> {
    let until_eof = arguments.until_eof;
    let users = Arc::new(arguments.users.clone());
    let server = Server::start(arguments.options()?, Vec::new()).map_err(|it| it.to_string())?;
    let server = Arc::new(server);
    announce(&server)?;
    let answering = Arc::clone(&server);
    let thread = std::thread::spawn(move || answer(&answering, &users));
    if until_eof {
        let mut ignored = Vec::new();
        std::io::stdin()
            .read_to_end(&mut ignored)
            .map_err(|it| it.to_string())?;
        server.stop(Duration::from_secs(5));
    }
    // Without `--until-eof` this ends when the server fails.
    thread.join().map_err(|_| "the answering thread panicked")?;
    server.failed().map_or(Ok(()), Err)
}

/// Says on one line where to connect.
fn announce(server: &Server) -> Result<(), String> {
    let addresses = server.addresses();
    let port = |name: &str| {
        let found = addresses.iter().find(|(it, _)| it == name);
        let tcp = found.and_then(|(_, address)| address.tcp());
        tcp.map_or("null".to_owned(), |address| address.port().to_string())
    };
    let mut out = std::io::stdout();
    writeln!(
        out,
        r#"{{"host":"127.0.0.1","port":{},"ws_port":{},"tls_port":{},"pid":{}}}"#,
        port("plain"),
        port("ws"),
        port("tls"),
        std::process::id()
    )
    .and_then(|()| out.flush())
    .map_err(|error| error.to_string())
}

/// Answers password checks until the server ends.
fn answer(server: &Server, users: &HashMap<String, String>) {
    let hash = |bytes: &[u8]| digest::digest(&digest::SHA256, bytes);
    let nobody = hash(b"");
    while server.failed().is_none() {
        let Some(question) = server.next_question(Duration::from_millis(500)) else {
            if server.has_ended() {
                return;
            }
            continue;
        };
        let known = users.get(&question.username);
        let expected = known.map_or(nobody, |password| hash(password.as_bytes()));
        let given = hash(question.password.reveal());
        // Digests are of one length, so that the comparison tells nothing about the password's;
        // an unknown user takes the same way as a known one.
        let equal = constant_time::verify_slices_are_equal(expected.as_ref(), given.as_ref());
        let answer = if equal.is_ok() && known.is_some() {
            Answer::Grant {
                client_id_bound: question.client_id == question.username,
                name: question.username,
                roles: vec![ROLE.to_owned()],
                until_s: None,
            }
        } else {
            Answer::Refuse {
                reason: Reason::BadUserNameOrPassword,
            }
        };
        server.answer(question.id, answer);
    }
}

impl Arguments {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Arguments, String> {
        let mut arguments = Arguments {
            port: None,
            ws_port: None,
            tls_port: None,
            certificate: None,
            key: None,
            ca: None,
            users: HashMap::new(),
            anonymous: false,
            tls12: false,
            until_eof: false,
            store: None,
            durability: Durability::Disk,
            // Nobody fetches events here.
            options: Options {
                sys_interval_s: 0,
                events_max: 0,
                ..Options::default()
            },
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--port" => arguments.port = Some(number(&value()?)?),
                "--ws-port" => arguments.ws_port = Some(number(&value()?)?),
                "--tls-port" => arguments.tls_port = Some(number(&value()?)?),
                "--cert" => arguments.certificate = Some(value()?.into()),
                "--key" => arguments.key = Some(value()?.into()),
                "--ca" => arguments.ca = Some(value()?.into()),
                "--shards" => arguments.options.shards = number(&value()?)?,
                "--user" => {
                    let text = value()?;
                    let (name, password) =
                        text.split_once(':').ok_or("--user needs NAME:PASSWORD")?;
                    if name.is_empty() || password.is_empty() {
                        return Err("--user needs a name and a password".into());
                    }
                    arguments.users.insert(name.to_owned(), password.to_owned());
                }
                "--anonymous" => arguments.anonymous = true,
                "--tls12" => arguments.tls12 = true,
                "--store" => arguments.store = Some(value()?.into()),
                "--durability" => {
                    arguments.durability = match value()?.as_str() {
                        "disk" => Durability::Disk,
                        "os" => Durability::Os,
                        other => return Err(format!("{other:?} is neither disk nor os")),
                    };
                }
                "--until-eof" => arguments.until_eof = true,
                "--connections-max" => {
                    arguments.options.settings.connections_max = number(&value()?)?;
                }
                "--connect-deadline-ms" => {
                    arguments.options.settings.connect_deadline_ms = number(&value()?)?;
                }
                "--sys-interval-s" => arguments.options.sys_interval_s = number(&value()?)?,
                _ => return Err(format!("unknown option {word}")),
            }
        }
        if arguments.users.is_empty() && !arguments.anonymous {
            return Err("nobody could come in: give --user or --anonymous".into());
        }
        Ok(arguments)
    }

    fn options(self) -> Result<Options, String> {
        let mut options = self.options.clone();
        options.policy = Arc::new(policy()?);
        options.store = self.store.clone().map(|folder| StoreOptions {
            durability: self.durability,
            ..StoreOptions::new(folder)
        });
        if let Some(port) = self.port {
            options
                .listeners
                .push(self.listener("plain", port, Security::Plain));
        }
        if let Some(port) = self.ws_port {
            let mut listener = self.listener("ws", port, Security::Plain);
            listener.websocket = Some(WebSocketOptions {
                path: "/mqtt".into(),
                origins: Vec::new(),
            });
            options.listeners.push(listener);
        }
        if let Some(port) = self.tls_port {
            let tls = TlsOptions {
                certificate_pem: file(&self.certificate, "--cert")?,
                key_pem: file(&self.key, "--key")?,
                client_ca_pem: self
                    .ca
                    .as_ref()
                    .map(|_| file(&self.ca, "--ca"))
                    .transpose()?,
                client_certificates: match self.ca {
                    Some(_) => ClientCertificates::Optional,
                    None => ClientCertificates::None,
                },
                versions: match self.tls12 {
                    true => TlsVersions::Tls12And13,
                    false => TlsVersions::Tls13,
                },
            };
            options
                .listeners
                .push(self.listener("tls", port, Security::Tls(tls)));
        }
        Ok(options)
    }

    fn listener(&self, name: &str, port: u16, security: Security) -> Listener {
        // Loopback only: there is one role, and it may do everything.
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Listener {
            anonymous_role: self.anonymous.then(|| ROLE.to_owned()),
            ..Listener::new(name, address, security)
        }
    }
}

/// One role that may do everything.
fn policy() -> Result<Policy, String> {
    let rule = |operation, filter: &str| Rule {
        operation,
        filter: filter.into(),
        qos_max: QoS::ExactlyOnce,
        retain: true,
        place: "bare".into(),
    };
    let rules = vec![
        rule(Operation::Publish, "#"),
        rule(Operation::Subscribe, "#"),
        rule(Operation::Subscribe, "$SYS/#"),
    ];
    let role = Role {
        name: ROLE.into(),
        rules,
    };
    Policy::compile(1, vec![role]).map_err(|fault| fault.to_string())
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not a number that fits"))
}

fn file(path: &Option<PathBuf>, option: &str) -> Result<Vec<u8>, String> {
    let path = path.as_ref().ok_or_else(|| format!("{option} is needed"))?;
    std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))
}
