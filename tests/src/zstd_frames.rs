//! Zstandard frames written by hand (RFC 8878): blocks of raw bytes and blocks that repeat one byte.
//!
//! Not a compressor worth the name, but every decoder must read its frames, and it makes a bomb of any size in a moment.

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// No content size, no checksum, no dictionary; a window follows.
const DESCRIPTOR: u8 = 0;
/// A window of 128 KiB.
const WINDOW: u8 = 7 << 3;
const BLOCK_BYTES: usize = 128 << 10;
/// Shorter runs stay raw.
const RUN_BYTES: usize = 64;

const RAW: u32 = 0;
const REPEATED: u32 = 1;

fn start() -> Vec<u8> {
    let mut frame = MAGIC.to_vec();
    frame.extend([DESCRIPTOR, WINDOW]);
    frame
}

fn push_block(frame: &mut Vec<u8>, kind: u32, length: usize, content: &[u8]) {
    let header = (length as u32) << 3 | kind << 1;
    frame.extend(&header.to_le_bytes()[..3]);
    frame.extend(content);
}

/// Ends with an empty raw block.
fn finish(mut frame: Vec<u8>) -> Vec<u8> {
    frame.extend([1, 0, 0]);
    frame
}

/// A frame of these bytes, smaller than they are if they have long runs.
pub fn compress(bytes: &[u8]) -> Vec<u8> {
    let mut frame = start();
    let mut raw_from = 0;
    let mut at = 0;
    while at < bytes.len() {
        let run = bytes[at..].iter().take(BLOCK_BYTES);
        let run = run.take_while(|byte| **byte == bytes[at]).count();
        if run >= RUN_BYTES {
            push_raw(&mut frame, &bytes[raw_from..at]);
            push_block(&mut frame, REPEATED, run, &bytes[at..=at]);
            raw_from = at + run;
        }
        at += run;
    }
    push_raw(&mut frame, &bytes[raw_from..]);
    finish(frame)
}

fn push_raw(frame: &mut Vec<u8>, bytes: &[u8]) {
    for block in bytes.chunks(BLOCK_BYTES) {
        push_block(frame, RAW, block.len(), block);
    }
}

/// A frame that begins with `head` and goes on with zeros, `zeros` rounded up to 128 KiB.
pub fn bomb(head: &[u8], zeros: u64) -> Vec<u8> {
    let mut frame = start();
    push_raw(&mut frame, head);
    for _ in 0..zeros.div_ceil(BLOCK_BYTES as u64) {
        push_block(&mut frame, REPEATED, BLOCK_BYTES, &[0]);
    }
    finish(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_becomes_one_block_between_raw_ones() {
        let mut bytes = b"ab".to_vec();
        bytes.extend([b'x'; 100]);
        bytes.push(b'c');
        let frame = compress(&bytes);
        let expected: &[u8] = &[
            0x28, 0xb5, 0x2f, 0xfd, 0, 0x38, 16, 0, 0, b'a', b'b', 0x22, 3, 0, b'x', 8, 0, 0, b'c',
            1, 0, 0,
        ];
        assert_eq!(frame, expected);
    }

    #[test]
    fn a_bomb_is_tiny() {
        assert!(bomb(b"head", 1 << 30).len() < 40_000);
    }
}
