//! A webhook on loopback: keeps what arrives and answers as the test says.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::support::wait_for;

/// One request that arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) request_line: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Arrived {
    pub(crate) fn events(&self) -> Vec<Value> {
        let body: Value = serde_json::from_slice(&self.body).unwrap();
        body["events"].as_array().unwrap().clone()
    }
}

/// What a request is answered with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    Status(u16),
    /// A redirect to the same host.
    Redirect,
    /// Nothing, and the connection stays open.
    Silence,
}

#[derive(Default)]
struct State {
    arrived: Vec<Arrived>,
    /// Answers to the next requests; 200 after these.
    replies: VecDeque<Reply>,
    /// Connections that get no answer stay open until the end.
    silent: Vec<TcpStream>,
}

/// The webhook; its threads end with the test's process.
#[derive(Clone)]
pub(crate) struct Receiver {
    /// `host:port`.
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

impl Receiver {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let receiver = Self { address, state: Arc::default() };
        let state = Arc::clone(&receiver.state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let state = Arc::clone(&state);
                std::thread::spawn(move || serve(stream.unwrap(), &state));
            }
        });
        receiver
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/hook?token=path-secret", self.address)
    }

    /// Sets how the next requests are answered.
    pub(crate) fn reply_next(&self, replies: &[Reply]) {
        self.state.lock().unwrap().replies.extend(replies);
    }

    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.state.lock().unwrap().arrived.clone()
    }

    /// Waits until an event of this type has arrived, and answers it with the request it came in.
    pub(crate) fn wait_for_event(&self, kind: &str) -> (Value, Arrived) {
        self.wait_for_events(kind, 1).remove(0)
    }

    /// Waits until at least `count` events of this type have arrived.
    pub(crate) fn wait_for_events(&self, kind: &str, count: usize) -> Vec<(Value, Arrived)> {
        wait_for(kind, || {
            let arrived = self.arrived();
            let all = arrived
                .iter()
                .flat_map(|one| one.events().into_iter().map(move |event| (event, one.clone())));
            let found: Vec<_> = all.filter(|(event, _)| event["eventType"] == kind).collect();
            (found.len() >= count).then_some(found)
        })
    }
}

/// Answers the requests of one connection until it ends.
fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    while let Some(arrived) = read_request(&mut reader) {
        let reply = {
            let mut state = state.lock().unwrap();
            state.arrived.push(arrived);
            state.replies.pop_front().unwrap_or(Reply::Status(200))
        };
        let answer = match reply {
            Reply::Status(status) => {
                format!("HTTP/1.1 {status} Reply\r\nContent-Length: 2\r\n\r\nok")
            }
            Reply::Redirect => {
                "HTTP/1.1 307 Elsewhere\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n"
                    .to_owned()
            }
            Reply::Silence => {
                state.lock().unwrap().silent.push(reader.into_inner());
                return;
            }
        };
        if reader.get_mut().write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Arrived> {
    let mut request_line = String::new();
    if reader.read_line(&mut request_line).ok()? == 0 {
        return None;
    }
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length: usize = headers.get("content-length")?.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Arrived { request_line: request_line.trim_end().to_owned(), headers, body })
}
