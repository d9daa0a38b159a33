//! Clients that do nothing but move bytes: a request made beforehand goes out in one write, and the thread sleeps in `read`
//! until the last byte of its answer is here. What a server takes on the wire is then seen without a client's own work.

use std::{
    error::Error,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

type Outcome<T> = Result<T, Box<dyn Error>>;

fn connect(address: &str) -> Outcome<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(stream)
}

/// Reads what has come, behind what is there already.
fn more(stream: &mut TcpStream, bytes: &mut Vec<u8>) -> Outcome<()> {
    let mut chunk = [0; 16 << 10];
    let count = stream.read(&mut chunk)?;
    if count == 0 {
        return Err("the server closed the connection".into());
    }
    bytes.extend_from_slice(&chunk[..count]);
    Ok(())
}

/// What a server of so many bytes has to take from any client: its thread reads a request of `request` bytes, computes for
/// `busy` and answers `answer` bytes, for ever.
pub fn echo(request: usize, busy: Duration, answer: usize) -> Outcome<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let (mut asked, answer) = (vec![0; request], vec![0; answer]);
        loop {
            stream.read_exact(&mut asked)?;
            let began = Instant::now();
            while began.elapsed() < busy {
                std::hint::spin_loop();
            }
            stream.write_all(&answer)?;
        }
    });
    Ok(address)
}

/// A connection to [`echo`].
pub struct Echo(TcpStream);

impl Echo {
    /// Connects.
    pub fn connect(address: SocketAddr) -> Outcome<Self> {
        connect(&address.to_string()).map(Self)
    }

    /// Sends `request` and returns how long the answer took, which fills `answer`.
    pub fn ask(&mut self, request: &[u8], answer: &mut [u8]) -> Outcome<Duration> {
        let began = Instant::now();
        self.0.write_all(request)?;
        self.0.read_exact(answer)?;
        Ok(began.elapsed())
    }
}

/// A connection that speaks HTTP/1.1.
pub struct Http1(TcpStream);

impl Http1 {
    /// Connects.
    pub fn connect(address: &str) -> Outcome<Self> {
        connect(address).map(Self)
    }

    /// Sends `request`, bytes of a whole one, and returns the answer's body and how long it took to come.
    pub fn ask(&mut self, request: &[u8]) -> Outcome<(Vec<u8>, Duration)> {
        let began = Instant::now();
        self.0.write_all(request)?;
        let mut bytes = Vec::new();
        let head = loop {
            more(&mut self.0, &mut bytes)?;
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
        };
        let text = std::str::from_utf8(&bytes[..head])?.to_ascii_lowercase();
        if !text.starts_with("http/1.1 200") {
            return Err(text.into());
        }
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let whole = head + length.ok_or("an answer without its length")?.parse::<usize>()?;
        while bytes.len() < whole {
            more(&mut self.0, &mut bytes)?;
        }
        let took = began.elapsed();
        Ok((bytes.split_off(head), took))
    }
}

const HEADER: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame of HTTP/2 (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A connection that speaks gRPC, one unary call at a time.
pub struct Grpc {
    stream: TcpStream,
    head: Vec<u8>,
    /// The next call's stream.
    next: u32,
}

impl Grpc {
    /// Connects, for calls of the method `path`.
    pub fn connect(address: &str, path: &str) -> Outcome<Self> {
        let mut stream = connect(address)?;
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        stream.write_all(&frame(SETTINGS, 0, 0, &[]))?;
        // HPACK (RFC 7541): POST and http by their index, the others as literals that no table remembers.
        let mut head = vec![0x83, 0x86];
        for (name, value) in [(&[0x04][..], path), (&[0x01], address), (&[0x0f, 0x10], "application/grpc")] {
            head.extend(name);
            head.push(u8::try_from(value.len())?);
            head.extend(value.as_bytes());
        }
        head.extend(b"\x00\x02te\x08trailers");
        Ok(Self { stream, head, next: 1 })
    }

    /// Sends a message and returns the answer's, and how long it took to come.
    pub fn ask(&mut self, message: &[u8]) -> Outcome<(Vec<u8>, Duration)> {
        let id = self.next;
        self.next += 2;
        let mut data = vec![0];
        data.extend((message.len() as u32).to_be_bytes());
        data.extend(message);
        let mut request = frame(HEADERS, END_HEADERS, id, &self.head);
        request.extend(frame(DATA, END_STREAM, id, &data));

        let began = Instant::now();
        self.stream.write_all(&request)?;
        let (mut bytes, mut answer) = (Vec::new(), Vec::new());
        loop {
            let (kind, flags, payload) = self.frame(&mut bytes)?;
            match kind {
                SETTINGS if flags & ACK == 0 => self.stream.write_all(&frame(SETTINGS, ACK, 0, &[]))?,
                PING if flags & ACK == 0 => self.stream.write_all(&frame(PING, ACK, 0, &payload))?,
                DATA => answer.extend(payload),
                _ => {}
            }
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 {
                break;
            }
        }
        let took = began.elapsed();
        if answer.len() < 5 {
            return Err("a call without an answer".into());
        }
        let window = (answer.len() as u32).to_be_bytes();
        self.stream.write_all(&frame(WINDOW_UPDATE, 0, 0, &window))?;
        Ok((answer.split_off(5), took))
    }

    /// The next frame: its kind, flags and payload.
    fn frame(&mut self, bytes: &mut Vec<u8>) -> Outcome<(u8, u8, Vec<u8>)> {
        while bytes.len() < HEADER {
            more(&mut self.stream, bytes)?;
        }
        let whole = HEADER + u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]) as usize;
        while bytes.len() < whole {
            more(&mut self.stream, bytes)?;
        }
        let (kind, flags) = (bytes[3], bytes[4]);
        let payload = bytes[HEADER..whole].to_vec();
        bytes.drain(..whole);
        Ok((kind, flags, payload))
    }
}
