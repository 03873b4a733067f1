//! Operations on sockets: on the loopback interface, which they switch on first.

use super::{expect, sys, timed};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};

/// Bytes of a message, and of one of a stream's writes.
const MESSAGE: usize = 16 << 10;
const WRITE: usize = 256 << 10;

fn failed(what: &'static str) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{what}: {error}")
}

/// Two ends of a connection.
fn pair() -> Result<(TcpStream, TcpStream), String> {
    sys::loopback_up();
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed("bind"))?;
    let address = listener.local_addr().map_err(failed("the address"))?;
    let client = TcpStream::connect(address).map_err(failed("connect"))?;
    let (server, _) = listener.accept().map_err(failed("accept"))?;
    for end in [&client, &server] {
        end.set_nodelay(true).map_err(failed("TCP_NODELAY"))?;
    }
    Ok((client, server))
}

/// Two processes pass `len` bytes to and fro; one operation is a round trip.
fn turns(times: u64, len: usize) -> Result<u64, String> {
    let (mut client, mut server) = pair()?;
    let child = sys::fork(|| {
        let mut bytes = vec![0; len];
        for _ in 0..times {
            if server.read_exact(&mut bytes).and_then(|()| server.write_all(&bytes)).is_err() {
                return 1;
            }
        }
        0
    })?;
    let mut sent = vec![0_u8; len];
    let mut got = vec![0; len];
    let ns = timed(times, || {
        sent[0] = sent[0].wrapping_add(1);
        client.write_all(&sent).map_err(failed("write"))?;
        client.read_exact(&mut got).map_err(failed("read"))?;
        expect("the byte", got[0], sent[0])
    })?;
    expect("the other process", sys::wait(child)?, 0)?;
    Ok(ns)
}

/// A byte to and fro.
pub(crate) fn tcp(times: u64) -> Result<u64, String> {
    turns(times, 1)
}

/// The same of 16 KiB.
pub(crate) fn tcp16k(times: u64) -> Result<u64, String> {
    turns(times, MESSAGE)
}

/// One process sends in writes of 256 KiB to another; one operation is a KiB.
pub(crate) fn stream(times: u64) -> Result<u64, String> {
    let (mut client, mut server) = pair()?;
    let all = times.next_multiple_of(WRITE as u64 / 1024) * 1024;
    let child = sys::fork(|| {
        let mut bytes = vec![0; WRITE];
        let mut got = 0;
        while got < all {
            match server.read(&mut bytes) {
                Ok(count) if count > 0 => got += count as u64,
                _ => return 1,
            }
        }
        i32::from(server.write_all(b"!").is_err())
    })?;
    let bytes = vec![1; WRITE];
    let ns = timed(1, || {
        for _ in 0..all / WRITE as u64 {
            client.write_all(&bytes).map_err(failed("write"))?;
        }
        client.read_exact(&mut [0]).map_err(failed("read"))
    })?;
    expect("the other process", sys::wait(child)?, 0)?;
    Ok(ns)
}

/// A connection is made, accepted and closed.
pub(crate) fn connect(times: u64) -> Result<u64, String> {
    sys::loopback_up();
    let listener = TcpListener::bind("127.0.0.1:0").map_err(failed("bind"))?;
    let address = listener.local_addr().map_err(failed("the address"))?;
    timed(times, || {
        let client = TcpStream::connect(address).map_err(failed("connect"))?;
        let (server, _) = listener.accept().map_err(failed("accept"))?;
        drop((client, server));
        Ok(())
    })
}

/// Two processes pass a datagram to and fro; one operation is a round trip.
pub(crate) fn udp(times: u64) -> Result<u64, String> {
    sys::loopback_up();
    let socket = || UdpSocket::bind("127.0.0.1:0").map_err(failed("bind"));
    let (own, other) = (socket()?, socket()?);
    for (from, to) in [(&own, &other), (&other, &own)] {
        let to = to.local_addr().map_err(failed("the address"))?;
        from.connect(to).map_err(failed("connect"))?;
    }
    let child = sys::fork(|| {
        let mut byte = [0];
        for _ in 0..times {
            if other.recv(&mut byte).and_then(|_| other.send(&byte)).is_err() {
                return 1;
            }
        }
        0
    })?;
    let mut sent = 0u8;
    let ns = timed(times, || {
        sent = sent.wrapping_add(1);
        own.send(&[sent]).map_err(failed("send"))?;
        let mut byte = [0];
        own.recv(&mut byte).map_err(failed("receive"))?;
        expect("the byte", byte, [sent])
    })?;
    expect("the other process", sys::wait(child)?, 0)?;
    Ok(ns)
}
