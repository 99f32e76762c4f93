//! A dense array with a shape, as it crosses between doors, features and engines.
//!
//! The elements are bytes that are shared, never changed: a clone, a reshape and a slice of a request's body cost no copy.
//! The layout is the Open Inference Protocol's binary one: row-major, little-endian, and for `BYTES` each element after its
//! length in four bytes.

use std::fmt;

use bytes::{Bytes, BytesMut};
use half::f16;
use smallvec::SmallVec;
use zerocopy::IntoBytes;

use super::datatype::Datatype;
use super::element::{Element, Owned};

/// Dimensions, outermost first.
pub type Shape = SmallVec<[usize; 4]>;

/// Elements of one type with a shape. A dimension may be 0: an empty batch is a tensor.
#[derive(Clone, PartialEq)]
pub struct Tensor {
    datatype: Datatype,
    shape: Shape,
    /// Aligned for the datatype.
    bytes: Bytes,
}

/// Why a shape and its data do not fit. Whoever knows the tensor's name puts it in front.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// The shape's product and the number of elements differ.
    #[error("shape {shape:?} does not hold {elements} elements")]
    Elements {
        /// The shape as given.
        shape: Vec<usize>,
        /// How many values there were.
        elements: usize,
    },
    /// The shape's product and the number of bytes differ.
    #[error("shape {shape:?} of {datatype} has {expected} bytes, given {given}")]
    Bytes {
        /// The shape as given.
        shape: Vec<usize>,
        /// The declared element type.
        datatype: Datatype,
        /// How many bytes it takes.
        expected: usize,
        /// How many there were.
        given: usize,
    },
    /// A dimension below 0.
    #[error("shape {0:?} has a negative dimension")]
    Negative(Vec<i64>),
    /// The product of the dimensions is no size of anything.
    #[error("shape {0:?} is larger than memory can be")]
    Overflow(Vec<usize>),
    /// A byte that is neither 0 nor 1.
    #[error("element {at} of BOOL is {value}, expected 0 or 1")]
    NotBool {
        /// The element, from 0.
        at: usize,
        /// The byte.
        value: u8,
    },
    /// An element of BYTES whose length leads out of the data.
    #[error("element {at} of BYTES ends behind the data")]
    Torn {
        /// The element, from 0.
        at: usize,
    },
}

impl Tensor {
    /// Takes `data` as `shape`, row-major. The vector becomes the tensor's memory.
    pub fn new<T: Element>(shape: impl AsRef<[usize]>, data: Vec<T>) -> Result<Self, TensorError> {
        let shape = shape.as_ref();
        if product(shape)? != data.len() {
            return Err(TensorError::Elements { elements: data.len(), shape: shape.to_vec() });
        }
        let bytes = if data.is_empty() { Bytes::new() } else { Bytes::from_owner(Owned(data)) };
        Ok(Self { datatype: T::DATATYPE, shape: shape.into(), bytes })
    }

    /// Takes the protocol's binary form. Copies only where the bytes are not aligned for their type, which a body's are
    /// by chance.
    pub fn from_bytes(datatype: Datatype, shape: impl AsRef<[usize]>, bytes: Bytes) -> Result<Self, TensorError> {
        let shape = shape.as_ref();
        let elements = product(shape)?;
        let Some(size) = datatype.size_bytes() else {
            check_texts(&bytes, elements, shape)?;
            return Ok(Self { datatype, shape: shape.into(), bytes });
        };
        let expected = elements.checked_mul(size).ok_or_else(|| TensorError::Overflow(shape.to_vec()))?;
        if bytes.len() != expected {
            return Err(TensorError::Bytes { shape: shape.to_vec(), datatype, expected, given: bytes.len() });
        }
        if datatype == Datatype::Bool
            && let Some(at) = bytes.iter().position(|&byte| byte > 1)
        {
            return Err(TensorError::NotBool { at, value: bytes[at] });
        }
        let bytes = if bytes.as_ptr().addr().is_multiple_of(size) { bytes } else { aligned(&bytes) };
        Ok(Self { datatype, shape: shape.into(), bytes })
    }

    /// A tensor of `BYTES` from its elements.
    pub fn of_texts<S: AsRef<[u8]>>(
        shape: impl AsRef<[usize]>,
        texts: impl IntoIterator<Item = S>,
    ) -> Result<Self, TensorError> {
        let shape = shape.as_ref();
        let mut bytes = BytesMut::new();
        let mut elements = 0;
        for text in texts {
            let text = text.as_ref();
            let length = u32::try_from(text.len()).map_err(|_| TensorError::Torn { at: elements })?;
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(text);
            elements += 1;
        }
        if product(shape)? != elements {
            return Err(TensorError::Elements { elements, shape: shape.to_vec() });
        }
        Ok(Self { datatype: Datatype::Bytes, shape: shape.into(), bytes: bytes.freeze() })
    }

    /// Numbers as elements of `datatype`: whole ones must be whole and in range, for BOOL 0 or 1. None where a number would
    /// become another, and for `BYTES`.
    pub fn of_numbers(datatype: Datatype, shape: impl AsRef<[usize]>, numbers: &[f64]) -> Option<Self> {
        macro_rules! whole {
            ($type:ty) => {{
                let whole = |&number: &f64| (number == f64::from(number as $type)).then_some(number as $type);
                Self::new(shape, numbers.iter().map(whole).collect::<Option<Vec<$type>>>()?).ok()
            }};
        }
        macro_rules! long {
            ($type:ty) => {{
                // The largest value of 64 bits is rounded up to one that does not fit.
                let fits = |number: f64| {
                    number.fract() == 0.0 && number >= <$type>::MIN as f64 && number < <$type>::MAX as f64
                };
                let whole = |&number: &f64| fits(number).then_some(number as $type);
                Self::new(shape, numbers.iter().map(whole).collect::<Option<Vec<$type>>>()?).ok()
            }};
        }
        match datatype {
            Datatype::Fp64 => Self::new(shape, numbers.to_vec()).ok(),
            Datatype::Fp32 => Self::new(shape, numbers.iter().map(|&number| number as f32).collect()).ok(),
            Datatype::Fp16 => Self::new(shape, numbers.iter().map(|&number| f16::from_f64(number)).collect()).ok(),
            Datatype::Bool => {
                let truth = |&number: &f64| (number == 0.0 || number == 1.0).then_some(number == 1.0);
                Self::new(shape, numbers.iter().map(truth).collect::<Option<Vec<bool>>>()?).ok()
            }
            Datatype::Uint8 => whole!(u8),
            Datatype::Uint16 => whole!(u16),
            Datatype::Uint32 => whole!(u32),
            Datatype::Int8 => whole!(i8),
            Datatype::Int16 => whole!(i16),
            Datatype::Int32 => whole!(i32),
            Datatype::Int64 => long!(i64),
            Datatype::Uint64 => long!(u64),
            Datatype::Bytes => None,
        }
    }

    /// What its elements are.
    pub fn datatype(&self) -> Datatype {
        self.datatype
    }

    /// Dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How many elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The protocol's binary form, shared.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Elements, row-major. None if they are of another type.
    pub fn as_slice<T: Element>(&self) -> Option<&[T]> {
        if self.datatype != T::DATATYPE {
            None
        } else if self.bytes.is_empty() {
            // An empty slice's address need not be aligned.
            Some(&[])
        } else {
            T::view(&self.bytes)
        }
    }

    /// The elements of a tensor of `BYTES`, row-major. None if they are of another type.
    pub fn texts(&self) -> Option<Texts<'_>> {
        (self.datatype == Datatype::Bytes).then_some(Texts { rest: &self.bytes })
    }

    /// Every element as a 64-bit float, exact but for whole numbers beyond 2^53. None for `BYTES`.
    pub fn to_numbers(&self) -> Option<Vec<f64>> {
        macro_rules! numbers {
            ($type:ty, $convert:expr) => {
                self.as_slice::<$type>()?.iter().map(|&element| $convert(element)).collect()
            };
        }
        Some(match self.datatype {
            Datatype::Bool => numbers!(bool, |truth| f64::from(u8::from(truth))),
            Datatype::Uint8 => numbers!(u8, f64::from),
            Datatype::Uint16 => numbers!(u16, f64::from),
            Datatype::Uint32 => numbers!(u32, f64::from),
            Datatype::Uint64 => numbers!(u64, |number| number as f64),
            Datatype::Int8 => numbers!(i8, f64::from),
            Datatype::Int16 => numbers!(i16, f64::from),
            Datatype::Int32 => numbers!(i32, f64::from),
            Datatype::Int64 => numbers!(i64, |number| number as f64),
            Datatype::Fp16 => numbers!(f16, f64::from),
            Datatype::Fp32 => numbers!(f32, f64::from),
            Datatype::Fp64 => self.as_slice::<f64>()?.to_vec(),
            Datatype::Bytes => return None,
        })
    }

    /// The first element that is nan or infinite. Whole numbers and texts have none.
    pub fn first_not_finite(&self) -> Option<(usize, f64)> {
        fn find<T: Element + Into<f64>>(tensor: &Tensor) -> Option<(usize, f64)> {
            let elements = tensor.as_slice::<T>()?;
            let at = elements.iter().position(|&element| !element.into().is_finite())?;
            Some((at, elements[at].into()))
        }
        match self.datatype {
            Datatype::Fp16 => find::<f16>(self),
            Datatype::Fp32 => find::<f32>(self),
            Datatype::Fp64 => find::<f64>(self),
            _ => None,
        }
    }

    /// The same elements in another shape, without a copy.
    pub fn reshaped(self, shape: impl AsRef<[usize]>) -> Result<Self, TensorError> {
        let shape = shape.as_ref();
        let elements = self.elements();
        if product(shape)? != elements {
            return Err(TensorError::Elements { elements, shape: shape.to_vec() });
        }
        Ok(Self { shape: shape.into(), ..self })
    }

    /// Row `row` of the first dimension, in a batch of one, without a copy. None behind the last row, for a tensor without
    /// dimensions and for `BYTES`.
    pub fn row(&self, row: usize) -> Option<Self> {
        let (&rows, inner) = self.shape.split_first()?;
        let width = inner.iter().product::<usize>() * self.datatype.size_bytes()?;
        let mut shape = self.shape.clone();
        shape[0] = 1;
        let bytes = (row < rows).then(|| self.bytes.slice(row * width..(row + 1) * width))?;
        Some(Self { datatype: self.datatype, shape, bytes })
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} ", self.datatype, self.shape)?;
        match self.to_numbers() {
            Some(numbers) => f.debug_list().entries(numbers.iter().take(16)).finish(),
            None => write!(f, "({} bytes)", self.bytes.len()),
        }
    }
}

/// The elements of a tensor of `BYTES`.
#[derive(Debug, Clone)]
pub struct Texts<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Texts<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (text, rest) = split_text(self.rest)?;
        self.rest = rest;
        Some(text)
    }
}

fn split_text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

fn check_texts(bytes: &[u8], elements: usize, shape: &[usize]) -> Result<(), TensorError> {
    let mut rest = bytes;
    let mut at = 0;
    while !rest.is_empty() {
        rest = split_text(rest).ok_or(TensorError::Torn { at })?.1;
        at += 1;
    }
    if at == elements { Ok(()) } else { Err(TensorError::Elements { shape: shape.to_vec(), elements: at }) }
}

/// The shape that a wire's signed dimensions mean.
pub fn shape_of(dims: &[i64]) -> Result<Shape, TensorError> {
    let dim = |&dim: &i64| usize::try_from(dim).map_err(|_| TensorError::Negative(dims.to_vec()));
    let shape = dims.iter().map(dim).collect::<Result<Shape, _>>()?;
    product(&shape)?;
    Ok(shape)
}

/// Elements of a shape. A dimension of 0 does not hide others whose product overflows.
fn product(shape: &[usize]) -> Result<usize, TensorError> {
    let whole = shape.iter().filter(|&&dim| dim > 0).try_fold(1_usize, |product, &dim| product.checked_mul(dim));
    let whole = whole.filter(|&elements| elements <= isize::MAX.unsigned_abs() / 8);
    let elements = whole.ok_or_else(|| TensorError::Overflow(shape.to_vec()))?;
    Ok(if shape.contains(&0) { 0 } else { elements })
}

/// A copy at an address that suits every element type.
fn aligned(bytes: &[u8]) -> Bytes {
    let mut words = vec![0_u64; bytes.len().div_ceil(8)];
    words.as_mut_slice().as_mut_bytes()[..bytes.len()].copy_from_slice(bytes);
    Bytes::from_owner(Owned(words)).slice(..bytes.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_must_hold_its_data_without_overflow() {
        assert!(Tensor::new([2, 3], vec![0.0_f32; 6]).is_ok());
        assert!(Tensor::new([2, 3], vec![0.0_f32; 5]).is_err());
        assert!(Tensor::new([usize::MAX, 2], vec![0.0_f32; 2]).is_err());
        assert!(Tensor::new([0, usize::MAX, 2], Vec::<f32>::new()).is_err());
        assert!(Tensor::new([0, 7], Vec::<f32>::new()).is_ok());
        assert_eq!(shape_of(&[2, -1]), Err(TensorError::Negative(vec![2, -1])));
        assert!(shape_of(&[i64::MAX, i64::MAX]).is_err());
    }

    #[test]
    fn aligned_bytes_are_shared_and_others_are_copied_once() {
        let whole = Tensor::new([4], vec![1.5_f32, -2.0, 0.0, f32::MAX]).unwrap();
        let shared = Tensor::from_bytes(Datatype::Fp32, [2, 2], whole.bytes().clone()).unwrap();
        assert_eq!(shared.bytes().as_ptr(), whole.bytes().as_ptr());
        let mut shifted = vec![0_u8];
        shifted.extend_from_slice(whole.bytes());
        let body = Bytes::from(shifted);
        let copied = Tensor::from_bytes(Datatype::Fp32, [4], body.slice(1..)).unwrap();
        assert_eq!(copied.as_slice::<f32>().unwrap(), [1.5, -2.0, 0.0, f32::MAX]);
        assert_eq!(copied.as_slice::<i32>(), None);
        assert_eq!(shared.row(1).unwrap().as_slice::<f32>().unwrap(), [0.0, f32::MAX]);
        assert_eq!(shared.row(2), None);
    }

    #[test]
    fn bytes_that_are_no_elements_are_refused() {
        let from = |datatype, shape: &[usize], bytes: &'static [u8]| {
            Tensor::from_bytes(datatype, shape, Bytes::from_static(bytes)).map_err(|error| error.to_string())
        };
        assert_eq!(from(Datatype::Bool, &[2], &[1, 7]).unwrap_err(), "element 1 of BOOL is 7, expected 0 or 1");
        assert_eq!(from(Datatype::Int16, &[2], &[1]).unwrap_err(), "shape [2] of INT16 has 4 bytes, given 1");
        assert_eq!(
            from(Datatype::Bytes, &[1], &[9, 0, 0, 0, 1]).unwrap_err(),
            "element 0 of BYTES ends behind the data"
        );
        assert_eq!(from(Datatype::Bytes, &[2], &[0, 0, 0, 0]).unwrap_err(), "shape [2] does not hold 1 elements");
        assert_eq!(from(Datatype::Bool, &[2], &[1, 0]).unwrap().as_slice::<bool>().unwrap(), [true, false]);
    }

    #[test]
    fn texts_keep_their_bytes_and_order() {
        let tensor = Tensor::of_texts([3], ["low", "", "h\u{f6}ch"]).unwrap();
        let again = Tensor::from_bytes(Datatype::Bytes, [3], tensor.bytes().clone()).unwrap();
        let texts: Vec<_> = again.texts().unwrap().collect();
        assert_eq!(texts, [&b"low"[..], b"", "h\u{f6}ch".as_bytes()]);
        assert!(Tensor::of_texts([2], ["one"]).is_err());
        assert_eq!(Tensor::new([1], vec![1_u8]).unwrap().texts().map(Iterator::count), None);
    }

    #[test]
    fn numbers_that_would_become_others_are_refused() {
        let of = |datatype, number| Tensor::of_numbers(datatype, [1], &[number]).map(|t| t.to_numbers().unwrap()[0]);
        for datatype in Datatype::ALL.into_iter().filter(|&datatype| datatype != Datatype::Bytes) {
            assert_eq!(of(datatype, 1.0), Some(1.0), "{datatype}");
            assert_eq!(Datatype::named(datatype.as_str()), Some(datatype));
        }
        assert_eq!(of(Datatype::Int8, 128.0), None);
        assert_eq!(of(Datatype::Uint64, -1.0), None);
        assert_eq!(of(Datatype::Int64, 9.3e18), None);
        assert_eq!(of(Datatype::Int64, -9_007_199_254_740_993.0), Some(-9_007_199_254_740_992.0));
        assert_eq!(of(Datatype::Int32, 1.5), None);
        assert_eq!(of(Datatype::Bool, 2.0), None);
    }

    #[test]
    fn the_first_number_that_is_not_finite_is_found_in_every_float() {
        assert_eq!(Tensor::new([2], vec![1.0, f64::INFINITY]).unwrap().first_not_finite(), Some((1, f64::INFINITY)));
        let half = Tensor::new([2], vec![f16::NAN, f16::ONE]).unwrap().first_not_finite().unwrap();
        assert!(half.0 == 0 && half.1.is_nan());
        assert_eq!(Tensor::new([1], vec![i64::MAX]).unwrap().first_not_finite(), None);
    }
}
