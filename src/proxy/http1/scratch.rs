//! The buffers of one worker, lent for as long as bytes are in them.

use std::cell::{RefCell, RefMut};

use crate::limits;

/// Spare buffers that are kept.
const SPARE_MAX: usize = 32;
/// A larger one is given back to the allocator.
const SPARE_BYTES_MAX: usize = 16 * 1024;

/// Where a worker reads into, and the buffers in which heads are written. A connection holds one only while
/// somebody does not take its bytes.
pub(in crate::proxy) struct Scratch {
    input: RefCell<Box<[u8]>>,
    spare: RefCell<Vec<Vec<u8>>>,
}

impl Scratch {
    pub(in crate::proxy) fn new() -> Self {
        let input = RefCell::new(vec![0; limits::TRAFFIC_BUFFER_BYTES_MAX].into_boxed_slice());
        Self { input, spare: RefCell::default() }
    }

    /// What was read last. Never held over an await: whoever reads next overwrites it.
    pub(super) fn input(&self) -> RefMut<'_, Box<[u8]>> {
        self.input.borrow_mut()
    }

    /// An empty buffer.
    pub(super) fn buffer(&self) -> Vec<u8> {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes one back.
    pub(super) fn put(&self, mut buffer: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        if buffer.capacity() > 0 && buffer.capacity() <= SPARE_BYTES_MAX && spare.len() < SPARE_MAX {
            buffer.clear();
            spare.push(buffer);
        }
    }
}
