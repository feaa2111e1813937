//! Fields of map values that several processors and user space write: read and written by value, never borrowed.

use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

/// A field of a map value that changes while others read it.
///
/// Single loads and stores of aligned integers are atomic on every architecture that we support; a sequence of them is
/// not, and the datapath is written so that it need not be.
#[derive(Default)]
#[repr(transparent)]
pub struct Shared<T>(UnsafeCell<T>);

// SAFETY: every access copies a whole integer in or out; a torn or lost update of a counter or a time stamp is allowed
// by the users of the type.
unsafe impl<T: Copy + Send> Sync for Shared<T> {}

impl<T: Copy> Shared<T> {
    /// A field with this value.
    pub const fn new(value: T) -> Self {
        Shared(UnsafeCell::new(value))
    }

    /// The value now.
    #[inline(always)]
    pub fn get(&self) -> T {
        // SAFETY: the cell lives as long as self; T is Copy and every bit pattern that anybody stores is a T.
        unsafe { *self.0.get() }
    }

    /// Stores a value; the last writer wins.
    #[inline(always)]
    pub fn set(&self, value: T) {
        // SAFETY: as for `get`; nobody holds a reference into the cell.
        unsafe { *self.0.get() = value }
    }
}

impl<T: Copy> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Shared::new(self.get())
    }
}

impl<T: Copy + PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl<T: Copy + fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// A number in a map value that several processors add to at once: none of what they add is lost.
#[derive(Default)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A counter that begins here.
    pub const fn new(value: u64) -> Self {
        Counter(AtomicU64::new(value))
    }

    /// The number now.
    #[inline(always)]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds to it.
    #[inline(always)]
    pub fn add(&self, number: u64) {
        #[cfg(not(target_arch = "bpf"))]
        self.0.fetch_add(number, Ordering::Relaxed);
        // SAFETY: the place is an aligned number of eight bytes that lives as long as self. The compiler has no way of its own
        // to say this instruction, which does not read the sum back and which all BPF machines know.
        #[cfg(target_arch = "bpf")]
        unsafe {
            core::arch::asm!("lock *(u64 *)({place} + 0) += {number}", place = in(reg) self.0.as_ptr(), number = in(reg) number, options(nostack));
        }
    }
}

impl Clone for Counter {
    fn clone(&self) -> Self {
        Counter::new(self.get())
    }
}

impl PartialEq for Counter {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl fmt::Debug for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}
