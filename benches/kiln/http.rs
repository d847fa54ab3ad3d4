//! The smallest HTTP/1.1 client that can drive a server to its limit.
//!
//! Client and server share the machine, so every cycle spent here is taken from what is measured:
//! requests are byte slices prepared beforehand and written with one vectored call, answers are
//! parsed only as far as their status and length, and bodies are read into one shared buffer.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::Fallible;

/// Room for any answer head and for the whole of a small answer.
const HEAD_ROOM: usize = 16 * 1024;
/// Large bodies are dropped in steps of this size, which still fits a second-level cache.
const DRAIN_ROOM: usize = 256 * 1024;
/// How much of a refusal is worth quoting.
const QUOTED: usize = 2048;

thread_local! {
    /// Connections of one thread take turns, and no turn keeps the buffer across an await.
    static DRAIN: RefCell<Vec<u8>> = RefCell::new(vec![0; DRAIN_ROOM]);
}

/// One keep-alive connection.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    filled: usize,
}

/// What is known of an answer once its head has been read.
struct Head {
    status: u16,
    /// Where the body begins in the buffer.
    body_at: usize,
    length: u64,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Fallible<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: vec![0; HEAD_ROOM], filled: 0 })
    }

    /// Sends one request, drops the body of the answer and returns its length.
    pub(crate) async fn exchange(&mut self, request: &[&[u8]]) -> Fallible<u64> {
        let head = self.ask(request).await?;
        let buffered = (self.filled - head.body_at) as u64;
        let mut left = head.length.checked_sub(buffered).ok_or("more bytes than announced")?;
        while left > 0 {
            left -= self.drop_some(left).await?;
        }
        Ok(head.length)
    }

    /// Sends one request and returns the body of the answer.
    pub(crate) async fn fetch(&mut self, request: &[&[u8]]) -> Fallible<Vec<u8>> {
        let head = self.ask(request).await?;
        self.body(&head, usize::try_from(head.length)?).await
    }

    /// Sends one request and reads the head of its answer, which has to be a success.
    async fn ask(&mut self, request: &[&[u8]]) -> Fallible<Head> {
        self.filled = 0;
        let sent = self.send(request).await;
        // A server that refuses an upload may answer and close before it has read everything; its
        // answer explains more than the broken pipe does.
        let head = match (self.head().await, sent) {
            (Ok(head), _) => head,
            (Err(_), Err(sending)) => return Err(format!("sending: {sending}").into()),
            (Err(reading), Ok(())) => return Err(reading),
        };
        if head.status / 100 != 2 {
            let length = usize::try_from(head.length)?.min(QUOTED);
            let body = self.body(&head, length).await?;
            let said = String::from_utf8_lossy(&body);
            return Err(format!("the server answered {}: {said}", head.status).into());
        }
        Ok(head)
    }

    async fn body(&mut self, head: &Head, length: usize) -> Fallible<Vec<u8>> {
        let mut body = self.buffer[head.body_at..self.filled].to_vec();
        body.truncate(length);
        while body.len() < length {
            self.filled = 0;
            let read = self.read_more().await?;
            let wanted = read.min(length - body.len());
            body.extend_from_slice(&self.buffer[..wanted]);
        }
        Ok(body)
    }

    async fn send(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        // No request here has more parts than a head, the eight bytes that make its body unique
        // and the rest of it.
        let mut slices = [IoSlice::new(&[]); 4];
        for (slice, part) in slices.iter_mut().zip(parts) {
            *slice = IoSlice::new(part);
        }
        let mut left = &mut slices[..parts.len()];
        let mut remaining: usize = parts.iter().map(|part| part.len()).sum();
        while remaining > 0 {
            let written =
                poll_fn(|cx| Pin::new(&mut self.stream).poll_write_vectored(cx, left)).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            remaining -= written;
            IoSlice::advance_slices(&mut left, written);
        }
        Ok(())
    }

    async fn head(&mut self) -> Fallible<Head> {
        let mut searched = 0;
        loop {
            self.read_more().await?;
            let seen = &self.buffer[..self.filled];
            if let Some(at) = seen[searched..].windows(4).position(|four| four == b"\r\n\r\n") {
                return parse(seen, searched + at + 4);
            }
            searched = self.filled.saturating_sub(3);
            if self.filled == self.buffer.len() {
                return Err("the head of an answer is longer than 16 KiB".into());
            }
        }
    }

    async fn read_more(&mut self) -> Fallible<usize> {
        let read = poll_fn(|cx| {
            let mut room = ReadBuf::new(&mut self.buffer[self.filled..]);
            Pin::new(&mut self.stream).poll_read(cx, &mut room).map_ok(|()| room.filled().len())
        })
        .await?;
        if read == 0 {
            return Err("the server closed the connection".into());
        }
        self.filled += read;
        Ok(read)
    }

    async fn drop_some(&mut self, left: u64) -> Fallible<u64> {
        let most = usize::try_from(left).unwrap_or(DRAIN_ROOM).min(DRAIN_ROOM);
        let read = poll_fn(|cx| {
            DRAIN.with_borrow_mut(|drain| {
                let mut room = ReadBuf::new(&mut drain[..most]);
                Pin::new(&mut self.stream).poll_read(cx, &mut room).map_ok(|()| room.filled().len())
            })
        })
        .await?;
        if read == 0 {
            return Err("the server closed the connection inside a body".into());
        }
        Ok(read as u64)
    }
}

fn parse(seen: &[u8], body_at: usize) -> Fallible<Head> {
    let status = seen
        .get(9..12)
        .and_then(|digits| std::str::from_utf8(digits).ok())
        .and_then(|digits| digits.parse().ok())
        .ok_or("an answer without a status")?;
    // Every measured operation answers with a length, so anything else is a finding and not a case
    // to handle.
    let length = seen[..body_at]
        .split(|&byte| byte == b'\n')
        .find_map(content_length)
        .ok_or("an answer without Content-Length")?;
    Ok(Head { status, body_at, length })
}

fn content_length(line: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"content-length:";
    let (name, value) = line.split_at_checked(NAME.len())?;
    if !name.eq_ignore_ascii_case(NAME) {
        return None;
    }
    std::str::from_utf8(value).ok()?.trim().parse().ok()
}
