//! What may stand in a tensor, and how its bytes are seen as numbers without a copy.

use half::f16;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, TryFromBytes};

use super::datatype::Datatype;

mod sealed {
    pub trait Sealed {}
}

/// A Rust type that is one of the protocol's fixed-size element types, in the machine's (little-endian) order.
pub trait Element:
    sealed::Sealed + IntoBytes + Immutable + KnownLayout + Copy + PartialEq + Send + Sync + 'static
{
    /// The protocol's word for it.
    const DATATYPE: Datatype;

    /// The elements that `bytes` hold. None if they are not aligned or not elements of this type.
    fn view(bytes: &[u8]) -> Option<&[Self]>;
}

#[cfg(target_endian = "big")]
compile_error!("tensors on the wire are little-endian and are not copied: a big-endian machine needs a conversion");

macro_rules! elements {
    ($($type:ty => $datatype:ident by $view:ident),* $(,)?) => {$(
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DATATYPE: Datatype = Datatype::$datatype;

            fn view(bytes: &[u8]) -> Option<&[Self]> {
                <[Self]>::$view(bytes).ok()
            }
        }
    )*};
}

elements! {
    bool => Bool by try_ref_from_bytes,
    u8 => Uint8 by ref_from_bytes,
    u16 => Uint16 by ref_from_bytes,
    u32 => Uint32 by ref_from_bytes,
    u64 => Uint64 by ref_from_bytes,
    i8 => Int8 by ref_from_bytes,
    i16 => Int16 by ref_from_bytes,
    i32 => Int32 by ref_from_bytes,
    i64 => Int64 by ref_from_bytes,
    f16 => Fp16 by ref_from_bytes,
    f32 => Fp32 by ref_from_bytes,
    f64 => Fp64 by ref_from_bytes,
}

/// A vector as bytes, for shared ownership without a copy.
pub(super) struct Owned<T>(pub(super) Vec<T>);

impl<T: Element> AsRef<[u8]> for Owned<T> {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice().as_bytes()
    }
}
