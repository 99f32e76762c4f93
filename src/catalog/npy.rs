//! Arrays as numpy writes them (`numpy.save`), in rows and in the machine's order
//! (<https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>).

use bytes::Bytes;

use crate::base::{Datatype, Tensor};

/// Reads the bytes of a file that `numpy.save` wrote. The error says what is wrong and what to do.
pub fn parse(bytes: &Bytes) -> Result<Tensor, String> {
    let torn = || "it is no array that numpy.save wrote".to_owned();
    let head = bytes.strip_prefix(b"\x93NUMPY").ok_or_else(torn)?;
    let (&[major, _], rest) = head.split_first_chunk::<2>().ok_or_else(torn)?;
    let (length, rest) = match major {
        1 => rest.split_first_chunk::<2>().map(|(length, rest)| (usize::from(u16::from_le_bytes(*length)), rest)),
        2 | 3 => {
            let split = rest.split_first_chunk::<4>();
            split.and_then(|(length, rest)| Some((usize::try_from(u32::from_le_bytes(*length)).ok()?, rest)))
        }
        _ => return Err(format!("it is of version {major} of numpy's format, expected 1 to 3")),
    }
    .ok_or_else(torn)?;
    let (header, data) = rest.split_at_checked(length).ok_or_else(torn)?;
    let header = std::str::from_utf8(header).map_err(|_| torn())?;
    if !value_of(header, "fortran_order").is_some_and(|order| order.starts_with("False")) {
        return Err("its columns lie together: save numpy.ascontiguousarray(array)".to_owned());
    }
    let shape = shape(value_of(header, "shape").ok_or_else(torn)?).ok_or_else(torn)?;
    let descr = value_of(header, "descr")
        .and_then(quoted)
        .ok_or_else(|| "it has a record an element: save an array of numbers, of bool or of text".to_owned())?;
    let data = bytes.slice(bytes.len() - data.len()..);
    let (order, kind) = descr.split_at_checked(1).ok_or_else(torn)?;
    if order == ">" {
        return Err(format!("its elements are {descr}: save it in little-endian order"));
    }
    match (kind.split_at_checked(1), datatype(kind)) {
        (_, Some(datatype)) => Tensor::from_bytes(datatype, shape, data).map_err(|error| error.to_string()),
        (Some(("U", width)), None) => {
            texts(&shape, &data, width, 4, |unit| char::from_u32(u32::from_le_bytes(unit.try_into().ok()?)))
        }
        (Some(("S", width)), None) => texts(&shape, &data, width, 1, |unit| Some(char::from(unit[0]))),
        _ => Err(format!("its elements are {descr}: save numbers, bool or text")),
    }
}

fn datatype(kind: &str) -> Option<Datatype> {
    Some(match kind {
        "b1" => Datatype::Bool,
        "u1" => Datatype::Uint8,
        "u2" => Datatype::Uint16,
        "u4" => Datatype::Uint32,
        "u8" => Datatype::Uint64,
        "i1" => Datatype::Int8,
        "i2" => Datatype::Int16,
        "i4" => Datatype::Int32,
        "i8" => Datatype::Int64,
        "f2" => Datatype::Fp16,
        "f4" => Datatype::Fp32,
        "f8" => Datatype::Fp64,
        _ => return None,
    })
}

/// What stands behind `'key':` in the header, which is a Python dictionary.
fn value_of<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let behind = header.split_once(&format!("'{key}':"))?.1;
    Some(behind.trim_start())
}

fn quoted(text: &str) -> Option<&str> {
    text.strip_prefix('\'')?.split_once('\'').map(|(inner, _)| inner)
}

fn shape(text: &str) -> Option<Vec<usize>> {
    let inner = text.strip_prefix('(')?.split_once(')')?.0;
    inner.split(',').map(str::trim).filter(|dim| !dim.is_empty()).map(|dim| dim.parse().ok()).collect()
}

/// Texts of `width` characters of `unit` bytes each, filled up with zeros.
fn texts(
    shape: &[usize],
    data: &[u8],
    width: &str,
    unit: usize,
    character: impl Fn(&[u8]) -> Option<char>,
) -> Result<Tensor, String> {
    let size = width.parse::<usize>().ok().and_then(|width| width.checked_mul(unit)).filter(|&size| size > 0);
    let size = size.filter(|size| data.len().is_multiple_of(*size)).ok_or_else(|| "its texts are torn".to_owned())?;
    let mut texts = Vec::with_capacity(data.len() / size);
    for text in data.chunks_exact(size) {
        let text: Option<String> = text.chunks_exact(unit).map(&character).collect();
        let text = text.ok_or_else(|| "a text has what is no character".to_owned())?;
        texts.push(text.trim_end_matches('\0').to_owned());
    }
    Tensor::of_texts(shape, texts).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend_from_slice(&u16::try_from(header.len()).unwrap().to_le_bytes());
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(data);
        bytes
    }

    fn parsed(header: &str, data: &[u8]) -> Result<Tensor, String> {
        parse(&file(header, data).into())
    }

    #[test]
    fn arrays_of_numbers_and_texts_are_read_as_numpy_wrote_them() {
        let numbers =
            parsed("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2), }\n", &[0, 0, 128, 63, 0, 0, 0, 64]);
        assert_eq!(numbers.unwrap(), Tensor::new([1, 2], vec![1.0_f32, 2.0]).unwrap());
        let scalar = parsed("{'descr': '|b1', 'fortran_order': False, 'shape': (), }", &[1]).unwrap();
        assert_eq!(scalar, Tensor::new([], vec![true]).unwrap());
        let wide = [b'a', 0, 0, 0, 0xfc, 0, 0, 0, b'b', 0, 0, 0, 0, 0, 0, 0];
        let texts = parsed("{'descr': '<U2', 'fortran_order': False, 'shape': (2,), }", &wide).unwrap();
        assert_eq!(texts, Tensor::of_texts([2], ["a\u{fc}", "b"]).unwrap());
        let narrow = parsed("{'descr': '|S2', 'fortran_order': False, 'shape': (2,), }", b"abc\0").unwrap();
        assert_eq!(narrow, Tensor::of_texts([2], ["ab", "c"]).unwrap());
    }

    #[test]
    fn what_is_no_array_says_so_and_every_prefix_is_refused() {
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }";
        let whole = file(header, &[0; 8]);
        for length in 0..whole.len() {
            assert!(parse(&whole[..length].to_vec().into()).is_err(), "{length}");
        }
        let refused = |from: &str, to: &str| parsed(&header.replace(from, to), &[0; 8]).unwrap_err();
        assert!(refused("False", "True").contains("ascontiguousarray"));
        assert!(refused("<f4", ">f4").contains("little-endian"));
        assert!(refused("<f4", "|O").contains("elements are |O"));
        assert!(refused("'<f4'", "[('a', '<f4')]").contains("record"));
        assert!(refused("(2,)", "(18446744073709551615, 2)").contains("larger than memory"));
        assert!(refused("(2,)", "(3,)").contains("12"));
        assert!(parse(&Bytes::from_static(b"weights")).unwrap_err().contains("numpy.save"));
    }
}
