//! Tensors in the protocol's messages: raw bytes, elements one by one, or the place in shared memory where they are.

use std::collections::HashMap;

use bytes::Bytes;
use tonic::Status;

use super::status::bad;
use super::wire::model_infer_request::InferInputTensor;
use super::wire::model_infer_response::InferOutputTensor;
use super::wire::{InferParameter, InferTensorContents, ModelInferRequest, infer_parameter::ParameterChoice};
use crate::base::{Datatype, Shape, Tensor, shape_of};
use crate::doors::shared_memory::{InRegion, Place};
use crate::flows::inference::{NamedTensor, Wanted};

const REGION: &str = "shared_memory_region";
const TENSORS_MAX: usize = 64;
const DIMENSIONS_MAX: usize = 8;

type Parameters = HashMap<String, InferParameter>;

/// The inputs of a request: those that are in it, ready for the engine, and those that lie in regions.
pub(super) fn inputs(request: &mut ModelInferRequest) -> Result<(Vec<NamedTensor>, Vec<InRegion>), Status> {
    let (inputs, raw) = (std::mem::take(&mut request.inputs), std::mem::take(&mut request.raw_input_contents));
    if inputs.is_empty() || inputs.len() > TENSORS_MAX {
        return Err(bad(format!("1 to {TENSORS_MAX} inputs, please; this request has {}", inputs.len())));
    }
    let here = inputs.iter().filter(|input| !input.parameters.contains_key(REGION)).count();
    if !raw.is_empty() && raw.len() != here {
        return Err(bad(format!(
            "raw_input_contents has {} tensors, the request has {here} inputs that are not in regions: give one for each, or none",
            raw.len(),
        )));
    }
    let mut raw = raw.into_iter();
    let (mut tensors, mut in_regions) = (Vec::with_capacity(here), Vec::new());
    for input in inputs {
        let place = place(&input.parameters).map_err(|what| bad(format!("input {:?}: {what}", input.name)))?;
        match place {
            None => tensors.push(read(input, raw.next())?),
            Some(place) => in_regions.push(read_place(input, place)?),
        }
    }
    Ok((tensors, in_regions))
}

/// Where a tensor lies, if that is in a region.
fn place(parameters: &Parameters) -> Result<Option<Place>, String> {
    let Some(region) = parameters.get(REGION) else { return Ok(None) };
    let Some(ParameterChoice::StringParam(region)) = &region.parameter_choice else {
        return Err(format!("{REGION} is the region's name"));
    };
    let number = |name: &str| match parameters.get(name) {
        None => Ok(None),
        Some(value) => whole(value).map(Some).ok_or_else(|| format!("{name} is a whole number from 0")),
    };
    let bytes = number("shared_memory_byte_size")?;
    let bytes = bytes.ok_or_else(|| format!("it lies in region {region:?} without `shared_memory_byte_size`"))?;
    Ok(Some(Place { region: region.clone(), offset: number("shared_memory_offset")?.unwrap_or(0), bytes }))
}

fn read_place(input: InferInputTensor, place: Place) -> Result<InRegion, Status> {
    let InferInputTensor { name, datatype, shape, contents, .. } = input;
    if contents.is_some() {
        return Err(bad(format!("input {name:?}: it lies in a region and has contents as well")));
    }
    let (datatype, shape) = kind(&name, &datatype, &shape)?;
    Ok(InRegion { name, datatype, shape, place })
}

fn kind(name: &str, datatype: &str, shape: &[i64]) -> Result<(Datatype, Shape), Status> {
    let wrong = |what: String| bad(format!("input {name:?}: {what}"));
    let datatype = Datatype::named(datatype).ok_or_else(|| {
        let words = Datatype::ALL.map(Datatype::as_str).join(", ");
        wrong(format!("no datatype {datatype:?}; it is one of {words}"))
    })?;
    if shape.len() > DIMENSIONS_MAX {
        return Err(wrong(format!("over {DIMENSIONS_MAX} dimensions")));
    }
    Ok((datatype, shape_of(shape).map_err(|error| wrong(error.to_string()))?))
}

fn read(input: InferInputTensor, raw: Option<Bytes>) -> Result<NamedTensor, Status> {
    let InferInputTensor { name, datatype, shape, contents, .. } = input;
    let (datatype, shape) = kind(&name, &datatype, &shape)?;
    let wrong = |what: String| bad(format!("input {name:?}: {what}"));
    let tensor = match (raw, contents) {
        (Some(_), Some(_)) => return Err(wrong("it has both contents and raw_input_contents".to_owned())),
        (Some(raw), None) => Tensor::from_bytes(datatype, &shape, raw).map_err(|error| error.to_string()),
        (None, contents) => of_contents(datatype, &shape, contents.unwrap_or_default()),
    };
    let tensor = tensor.map_err(wrong)?;
    Ok(NamedTensor { name, tensor })
}

fn of_contents(datatype: Datatype, shape: &[usize], contents: InferTensorContents) -> Result<Tensor, String> {
    fn narrow<W: Copy + ToString, T: TryFrom<W>>(wide: &[W], datatype: Datatype) -> Result<Vec<T>, String> {
        let fits = |(at, &value): (usize, &W)| {
            T::try_from(value).map_err(|_| format!("element {at} is {}, which is no {datatype}", value.to_string()))
        };
        wide.iter().enumerate().map(fits).collect()
    }
    let InferTensorContents {
        bool_contents,
        int_contents,
        int64_contents,
        uint_contents,
        uint64_contents,
        fp32_contents,
        fp64_contents,
        bytes_contents,
    } = contents;
    let tensor = match datatype {
        Datatype::Bool => Tensor::new(shape, bool_contents),
        Datatype::Int8 => Tensor::new(shape, narrow::<_, i8>(&int_contents, datatype)?),
        Datatype::Int16 => Tensor::new(shape, narrow::<_, i16>(&int_contents, datatype)?),
        Datatype::Int32 => Tensor::new(shape, int_contents),
        Datatype::Int64 => Tensor::new(shape, int64_contents),
        Datatype::Uint8 => Tensor::new(shape, narrow::<_, u8>(&uint_contents, datatype)?),
        Datatype::Uint16 => Tensor::new(shape, narrow::<_, u16>(&uint_contents, datatype)?),
        Datatype::Uint32 => Tensor::new(shape, uint_contents),
        Datatype::Uint64 => Tensor::new(shape, uint64_contents),
        Datatype::Fp32 => Tensor::new(shape, fp32_contents),
        Datatype::Fp64 => Tensor::new(shape, fp64_contents),
        Datatype::Bytes => Tensor::of_texts(shape, bytes_contents),
        Datatype::Fp16 => return Err("FP16 has no contents in the protocol; send raw_input_contents".to_owned()),
    };
    tensor.map_err(|error| error.to_string())
}

/// The outputs that a request wants, and the regions that they go into.
pub(super) fn wanted(request: &mut ModelInferRequest) -> Result<(Vec<Wanted>, Vec<Option<Place>>), Status> {
    if request.outputs.len() > TENSORS_MAX {
        return Err(bad(format!("at most {TENSORS_MAX} outputs, please; this request has {}", request.outputs.len())));
    }
    let outputs = std::mem::take(&mut request.outputs).into_iter();
    let wanted = outputs.map(|output| {
        let wrong = |what: &str| bad(format!("output {:?}: {what}", output.name));
        let place = place(&output.parameters).map_err(|what| wrong(&what))?;
        let classes = output.parameters.get("classification").and_then(whole);
        let classes = classes.and_then(|classes| usize::try_from(classes).ok()).filter(|&classes| classes > 0);
        if place.is_some() && classes.is_some() {
            return Err(wrong("it cannot have both `shared_memory_region` and `classification`"));
        }
        Ok((Wanted { name: output.name, classes }, place))
    });
    wanted.collect::<Result<Vec<_>, _>>().map(|wanted| wanted.into_iter().unzip())
}

/// A parameter that is a whole number from 0.
pub(super) fn whole(parameter: &InferParameter) -> Option<u64> {
    match parameter.parameter_choice.as_ref()? {
        ParameterChoice::Int64Param(number) => u64::try_from(*number).ok(),
        ParameterChoice::Uint64Param(number) => Some(*number),
        _ => None,
    }
}

/// An output, without its bytes, and where they are if that is a region.
pub(super) fn describe(output: &NamedTensor, place: Option<&Place>) -> InferOutputTensor {
    let parameter = |choice| InferParameter { parameter_choice: Some(choice) };
    let number = |number: u64| parameter(ParameterChoice::Int64Param(i64::try_from(number).unwrap_or(i64::MAX)));
    let parameters = place.map(|place| {
        HashMap::from([
            (REGION.to_owned(), parameter(ParameterChoice::StringParam(place.region.clone()))),
            ("shared_memory_offset".to_owned(), number(place.offset)),
            ("shared_memory_byte_size".to_owned(), number(output.tensor.bytes().len() as u64)),
        ])
    });
    InferOutputTensor {
        parameters: parameters.unwrap_or_default(),
        name: output.name.clone(),
        datatype: output.tensor.datatype().to_string(),
        shape: output.tensor.shape().iter().map(|&dim| i64::try_from(dim).unwrap_or(i64::MAX)).collect(),
        ..InferOutputTensor::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input(datatype: &str, shape: &[i64], contents: Option<InferTensorContents>) -> InferInputTensor {
        InferInputTensor {
            name: "x".to_owned(),
            datatype: datatype.to_owned(),
            shape: shape.to_vec(),
            contents,
            ..InferInputTensor::default()
        }
    }

    fn ask(inputs: Vec<InferInputTensor>, raw: Vec<Bytes>) -> Result<Vec<NamedTensor>, String> {
        let mut request = ModelInferRequest { inputs, raw_input_contents: raw, ..ModelInferRequest::default() };
        super::inputs(&mut request).map(|(here, _)| here).map_err(|status| status.message().to_owned())
    }

    #[test]
    fn raw_bytes_and_elements_are_the_same_tensor() {
        let elements = InferTensorContents { int_contents: vec![1, -2], ..InferTensorContents::default() };
        let by_element = ask(vec![input("INT16", &[2], Some(elements))], vec![]).unwrap();
        let raw = ask(vec![input("INT16", &[2], None)], vec![Bytes::from_static(&[1, 0, 0xfe, 0xff])]).unwrap();
        assert_eq!(by_element[0].tensor, raw[0].tensor);
        let texts = InferTensorContents { bytes_contents: vec![Bytes::from_static(b"a")], ..Default::default() };
        let texts = ask(vec![input("BYTES", &[1], Some(texts))], vec![]).unwrap();
        assert_eq!(texts[0].tensor.texts().unwrap().collect::<Vec<_>>(), [b"a"]);
        assert_eq!(ask(vec![input("FP32", &[0], None)], vec![]).unwrap()[0].tensor.elements(), 0);
    }

    #[test]
    fn raw_contents_are_those_of_the_inputs_that_are_not_in_regions() {
        let text = |text: &str| ParameterChoice::StringParam(text.to_owned());
        let in_region = |parameters: &[(&str, ParameterChoice)]| InferInputTensor {
            parameters: parameters
                .iter()
                .map(|(name, choice)| ((*name).to_owned(), InferParameter { parameter_choice: Some(choice.clone()) }))
                .collect(),
            ..input("INT16", &[1], None)
        };
        let read = |input: InferInputTensor, raw: Vec<Bytes>| {
            let inputs = vec![input, self::input("INT16", &[1], None)];
            let mut request = ModelInferRequest { inputs, raw_input_contents: raw, ..ModelInferRequest::default() };
            super::inputs(&mut request).map_err(|status| status.message().to_owned())
        };
        let size = ("shared_memory_byte_size", ParameterChoice::Int64Param(2));
        let raw = || vec![Bytes::from_static(b"ab")];
        let (here, there) = read(in_region(&[(REGION, text("r")), size.clone()]), raw()).unwrap();
        assert_eq!((here.len(), &there[0].place), (1, &Place { region: "r".to_owned(), offset: 0, bytes: 2 }));
        for (parameters, raw, says) in [
            (vec![(REGION, text("r"))], raw(), "without `shared_memory_byte_size`"),
            (vec![(REGION, ParameterChoice::BoolParam(true)), size.clone()], raw(), "is the region's name"),
            (
                vec![(REGION, text("r")), ("shared_memory_byte_size", ParameterChoice::Int64Param(-1))],
                raw(),
                "shared_memory_byte_size is a whole number from 0",
            ),
            (vec![(REGION, text("r")), size], vec![Bytes::new(), Bytes::new()], "has 2 tensors, the request has 1"),
        ] {
            let error = read(in_region(&parameters), raw).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_names_the_input_and_both_figures() {
        let large = InferTensorContents { int_contents: vec![1, 300], ..InferTensorContents::default() };
        for (inputs, raw, says) in [
            (vec![], vec![], "1 to 64 inputs, please; this request has 0"),
            (vec![input("FP8", &[1], None)], vec![], "input \"x\": no datatype \"FP8\""),
            (vec![input("FP32", &[-1], None)], vec![], "input \"x\": shape [-1] has a negative dimension"),
            (vec![input("FP32", &[1; 9], None)], vec![], "input \"x\": over 8 dimensions"),
            (vec![input("INT8", &[2], Some(large.clone()))], vec![], "element 1 is 300, which is no INT8"),
            (vec![input("FP32", &[1], None)], vec![], "shape [1] does not hold 0 elements"),
            (vec![input("FP16", &[1], None)], vec![], "FP16 has no contents"),
            (
                vec![input("INT16", &[2], None)],
                vec![Bytes::from_static(b"abc")],
                "input \"x\": shape [2] of INT16 has 4 bytes, given 3",
            ),
            (vec![input("INT16", &[1], Some(large))], vec![Bytes::from_static(b"ab")], "it has both contents"),
            (vec![input("INT16", &[1], None)], vec![Bytes::new(), Bytes::new()], "raw_input_contents has 2 tensors"),
        ] {
            let error = ask(inputs, raw).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
