//! Which types may cross between kernel and user space as bytes?

/// A type without padding for which every bit pattern is a value.
///
/// # Safety
/// Only for integers, arrays of them, and `repr(C)` structs of such fields without implicit padding. Implement it with
/// [`plain!`](crate::plain), which checks the padding when the crate is compiled.
pub unsafe trait Plain: Sized + 'static {}

/// Declares a struct as [`Plain`], given the types of all its fields: sizes must add up, so there is no padding.
#[macro_export]
macro_rules! plain {
    ($name:ty: $($field:ty),+ $(,)?) => {
        const _: () = assert!(size_of::<$name>() == 0 $(+ size_of::<$field>())+, "implicit padding");
        // SAFETY: the sizes of the fields add up to that of the struct, so there is no padding; the fields are integers,
        // arrays of integers, or structs of this kind.
        unsafe impl $crate::Plain for $name {}
    };
}

// SAFETY: integers have no padding and every bit pattern is a value.
unsafe impl Plain for u8 {}
// SAFETY: as above.
unsafe impl Plain for u16 {}
// SAFETY: as above.
unsafe impl Plain for u32 {}
// SAFETY: as above.
unsafe impl Plain for u64 {}
// SAFETY: an array of such values has none between them.
unsafe impl<T: Plain, const N: usize> Plain for [T; N] {}

/// The bytes of a value, as they lie in a map.
pub fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: a Plain value has no padding, so each of its bytes is initialised; the slice borrows the value.
    unsafe { core::slice::from_raw_parts(core::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// The value that lies in these bytes, or nothing if there are too few or too many.
pub fn from_bytes<T: Plain>(bytes: &[u8]) -> Option<T> {
    // SAFETY: the length fits, any bit pattern is a value, and the read does not ask for alignment.
    (bytes.len() == size_of::<T>()).then(|| unsafe { core::ptr::read_unaligned(bytes.as_ptr().cast()) })
}
