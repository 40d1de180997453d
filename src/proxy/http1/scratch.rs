//! The buffers of one worker, lent for as long as bytes are in them.

use std::cell::{RefCell, RefMut};

use crate::limits;

/// Spare buffers that are kept.
const SPARE_MAX: usize = 32;
/// What they weigh together. More goes back to the allocator, which takes the pages of large ones from the process
/// and gives them back one fault at a time: the few that 64 KiB each way need at any moment are worth keeping.
const SPARE_BYTES_MAX: usize = 512 * 1024;

/// Where a worker reads into, and the buffers in which heads are written. A connection holds one only while
/// somebody does not take its bytes.
pub(in crate::proxy) struct Scratch {
    input: RefCell<Box<[u8]>>,
    spare: RefCell<Spare>,
}

#[derive(Default)]
struct Spare {
    buffers: Vec<Vec<u8>>,
    bytes: usize,
}

impl Scratch {
    pub(in crate::proxy) fn new() -> Self {
        let input = RefCell::new(vec![0; limits::TRAFFIC_BUFFER_BYTES_MAX].into_boxed_slice());
        Self { input, spare: RefCell::default() }
    }

    /// What was read last. Never held over an await: whoever reads next overwrites it.
    pub(in crate::proxy) fn input(&self) -> RefMut<'_, Box<[u8]>> {
        self.input.borrow_mut()
    }

    /// An empty buffer.
    pub(super) fn buffer(&self) -> Vec<u8> {
        let mut spare = self.spare.borrow_mut();
        let buffer = spare.buffers.pop().unwrap_or_default();
        spare.bytes -= buffer.capacity();
        buffer
    }

    /// Takes one back.
    pub(super) fn put(&self, mut buffer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        let bytes = spare.bytes + buffer.capacity();
        if buffer.capacity() > 0 && bytes <= SPARE_BYTES_MAX && spare.buffers.len() < SPARE_MAX {
            buffer.clear();
            spare.buffers.push(buffer);
            spare.bytes = bytes;
        }
    }
}
