use super::*;

fn put(file: &File, bytes: &[u8]) -> Result<usize> {
    file.write(&mut IoSrc::kernel(bytes))
}

fn get(file: &File, len: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    let count = file.read(&mut IoDst::kernel(&mut bytes))?;
    bytes.truncate(count);
    Ok(bytes)
}

#[test]
fn bytes_come_out_in_order() {
    let (r, w) = Pipe::pair(0);
    assert_eq!(get(&r, 1), Err(Errno::EAGAIN));
    let mut sent = 0u32;
    let mut seen = 0u32;
    for round in 0..1000 {
        let mut out = Vec::new();
        for _ in 0..(round * 7) % 1500 {
            out.push(sent as u8);
            sent += 1;
        }
        assert_eq!(put(&w, &out), Ok(out.len()));
        while let Ok(bytes) = get(&r, 1 + (round * 13) % 997) {
            for byte in bytes {
                assert_eq!(byte, seen as u8);
                seen += 1;
            }
        }
    }
    assert_eq!(sent, seen);
}

#[test]
fn small_writes_are_atomic_and_large_ones_partial() {
    let (r, w) = Pipe::pair(0);
    assert_eq!(put(&w, &vec![1; 70000]), Ok(65536));
    assert_eq!(put(&w, &[1]), Err(Errno::EAGAIN));
    assert_eq!(w.ops().poll() & c::POLLOUT, 0);
    assert_eq!(get(&r, 100).unwrap().len(), 100);
    assert_eq!(put(&w, &[1; 101]), Err(Errno::EAGAIN));
    assert_eq!(put(&w, &[1; 100]), Ok(100));
    assert_eq!(get(&r, 100_000).unwrap().len(), 65536);
}

#[test]
fn ends_notice_each_other() {
    let (r, w) = Pipe::pair(0);
    put(&w, b"x").unwrap();
    drop(w);
    assert_eq!(r.ops().poll(), IN | c::POLLHUP);
    assert_eq!(get(&r, 10), Ok(b"x".to_vec()));
    assert_eq!(get(&r, 10), Ok(Vec::new()));
    let (r, w) = Pipe::pair(0);
    drop(r);
    assert_eq!(put(&w, b"x"), Err(Errno::EPIPE));
    assert_eq!(w.ops().poll() & c::POLLERR, c::POLLERR);
    assert_eq!(get(&w, 1), Err(Errno::EBADF));
}

#[test]
fn fifos_wait_for_the_other_side() {
    let pipe = Pipe::new();
    let how = |flags| OpenHow { flags, ..OpenHow::default() };
    assert_eq!(pipe.open_fifo(&how(c::O_WRONLY | c::O_NONBLOCK)).err(), Some(Errno::ENXIO));
    let reader = pipe.open_fifo(&how(c::O_RDONLY)).unwrap();
    assert!(!reader.opened());
    assert_eq!(reader.poll(), 0);
    let writer = pipe.open_fifo(&how(c::O_WRONLY)).unwrap();
    assert!(reader.opened() && writer.opened());
    drop(writer);
    assert!(reader.opened());
    assert_eq!(reader.poll(), c::POLLHUP);
}
