//! Tensors between shared memory and ONNX Runtime.

use std::borrow::Cow;
use std::fmt::Debug;

use half::f16;
use ort::session::SessionInputValue;
use ort::value::{DynValue, PrimitiveTensorElementType, Tensor, TensorElementType, TensorRef};

use crate::base::{Datatype, Element, Shape};
use crate::engine::delegate::system::Mapping;
use crate::engine::delegate::wire::Slot;

/// The element types that both have.
const DATATYPES: [(Datatype, TensorElementType); 13] = [
    (Datatype::Bool, TensorElementType::Bool),
    (Datatype::Uint8, TensorElementType::Uint8),
    (Datatype::Uint16, TensorElementType::Uint16),
    (Datatype::Uint32, TensorElementType::Uint32),
    (Datatype::Uint64, TensorElementType::Uint64),
    (Datatype::Int8, TensorElementType::Int8),
    (Datatype::Int16, TensorElementType::Int16),
    (Datatype::Int32, TensorElementType::Int32),
    (Datatype::Int64, TensorElementType::Int64),
    (Datatype::Fp16, TensorElementType::Float16),
    (Datatype::Fp32, TensorElementType::Float32),
    (Datatype::Fp64, TensorElementType::Float64),
    (Datatype::Bytes, TensorElementType::String),
];

/// The protocol's word for ONNX Runtime's.
pub(super) fn datatype_of(element: TensorElementType) -> Option<Datatype> {
    DATATYPES.iter().find(|(_, theirs)| *theirs == element).map(|(ours, _)| *ours)
}

macro_rules! by_datatype {
    ($datatype:expr, $typed:ident ( $($argument:expr),* ), $bytes:expr) => {
        match $datatype {
            Datatype::Bool => $typed::<bool>($($argument),*),
            Datatype::Uint8 => $typed::<u8>($($argument),*),
            Datatype::Uint16 => $typed::<u16>($($argument),*),
            Datatype::Uint32 => $typed::<u32>($($argument),*),
            Datatype::Uint64 => $typed::<u64>($($argument),*),
            Datatype::Int8 => $typed::<i8>($($argument),*),
            Datatype::Int16 => $typed::<i16>($($argument),*),
            Datatype::Int32 => $typed::<i32>($($argument),*),
            Datatype::Int64 => $typed::<i64>($($argument),*),
            Datatype::Fp16 => $typed::<f16>($($argument),*),
            Datatype::Fp32 => $typed::<f32>($($argument),*),
            Datatype::Fp64 => $typed::<f64>($($argument),*),
            Datatype::Bytes => $bytes,
        }
    };
}

/// An input as it lies in the shared memory, without a copy; texts are copied.
pub(super) fn input<'m>(slot: &Slot, memory: &'m Mapping) -> Result<SessionInputValue<'m>, String> {
    fn typed<'m, T>(slot: &Slot, bytes: &'m [u8]) -> Result<SessionInputValue<'m>, String>
    where
        T: Element + PrimitiveTensorElementType + Debug,
    {
        let elements = T::view(bytes).ok_or("an input is not of its type")?;
        let tensor = TensorRef::from_array_view((slot.shape.to_vec(), elements)).map_err(|error| error.to_string())?;
        Ok(tensor.into())
    }
    let bytes = memory.view(slot.offset, slot.bytes).ok_or("an input lies outside the memory")?;
    by_datatype!(slot.datatype, typed(slot, bytes), {
        let tensor =
            crate::base::Tensor::from_bytes(Datatype::Bytes, &slot.shape, bytes::Bytes::copy_from_slice(bytes));
        let tensor = tensor.map_err(|error| error.to_string())?;
        fn text(bytes: &[u8]) -> Result<String, String> {
            String::from_utf8(bytes.to_vec()).map_err(|_| "ONNX Runtime takes no text that is not UTF-8".to_owned())
        }
        let texts = tensor.texts().into_iter().flatten().map(text).collect::<Result<Vec<String>, String>>()?;
        let strings =
            Tensor::from_string_array((slot.shape.to_vec(), &texts[..])).map_err(|error| error.to_string())?;
        Ok(strings.into())
    })
}

/// An output that ONNX Runtime owns.
pub(super) struct Told {
    pub(super) datatype: Datatype,
    pub(super) shape: Shape,
    value: DynValue,
    /// Of texts: the protocol's form.
    texts: Vec<u8>,
}

impl Told {
    /// Takes an output as its datatype, which is that of the session's output.
    pub(super) fn of(value: DynValue, datatype: Datatype) -> Result<Self, String> {
        fn shape_of<T: PrimitiveTensorElementType>(value: &DynValue) -> Result<Shape, String> {
            let (shape, _) = value.try_extract_tensor::<T>().map_err(|error| error.to_string())?;
            dims(shape)
        }
        let mut texts = Vec::new();
        let shape = by_datatype!(datatype, shape_of(&value), {
            let (shape, strings) = value.try_extract_strings().map_err(|error| error.to_string())?;
            for text in strings {
                let length = u32::try_from(text.len()).map_err(|_| "a text of an output is larger than 4 GiB")?;
                texts.extend_from_slice(&length.to_le_bytes());
                texts.extend_from_slice(text.as_bytes());
            }
            dims(shape)
        })?;
        Ok(Self { datatype, shape, value, texts })
    }

    /// Its elements in the protocol's form.
    pub(super) fn bytes(&self) -> Cow<'_, [u8]> {
        fn typed<T: Element + PrimitiveTensorElementType>(value: &DynValue) -> Cow<'_, [u8]> {
            let elements = value.try_extract_tensor::<T>().map(|(_, elements)| elements).unwrap_or_default();
            Cow::Borrowed(zerocopy::IntoBytes::as_bytes(elements))
        }
        by_datatype!(self.datatype, typed(&self.value), Cow::Borrowed(&self.texts))
    }
}

fn dims(shape: &ort::value::Shape) -> Result<Shape, String> {
    shape.iter().map(|&dim| usize::try_from(dim).map_err(|_| "an output has a negative dimension".to_owned())).collect()
}
