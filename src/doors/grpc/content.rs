//! Tensors in the protocol's messages: raw bytes, or elements one by one.

use bytes::Bytes;
use tonic::Status;

use super::status::bad;
use super::wire::model_infer_request::InferInputTensor;
use super::wire::model_infer_response::InferOutputTensor;
use super::wire::{InferParameter, InferTensorContents, ModelInferRequest, infer_parameter::ParameterChoice};
use crate::base::{Datatype, Tensor, shape_of};
use crate::flows::inference::{NamedTensor, Wanted};

const TENSORS_MAX: usize = 64;
const DIMENSIONS_MAX: usize = 8;

/// The inputs of a request, ready for the engine.
pub(super) fn inputs(request: &mut ModelInferRequest) -> Result<Vec<NamedTensor>, Status> {
    let (inputs, raw) = (std::mem::take(&mut request.inputs), std::mem::take(&mut request.raw_input_contents));
    if inputs.is_empty() || inputs.len() > TENSORS_MAX {
        return Err(bad(format!("1 to {TENSORS_MAX} inputs, please; this request has {}", inputs.len())));
    }
    if !raw.is_empty() && raw.len() != inputs.len() {
        return Err(bad(format!(
            "raw_input_contents has {} tensors, the request has {} inputs: give one for each, or none",
            raw.len(),
            inputs.len()
        )));
    }
    let mut raw = raw.into_iter();
    inputs.into_iter().map(|input| read(input, raw.next())).collect()
}

fn read(input: InferInputTensor, raw: Option<Bytes>) -> Result<NamedTensor, Status> {
    let InferInputTensor { name, datatype, shape, parameters, contents } = input;
    let wrong = |what: String| bad(format!("input {name:?}: {what}"));
    if parameters.contains_key("shared_memory_region") {
        return Err(wrong("tensors in shared memory are not supported; send them with the request".to_owned()));
    }
    let datatype = Datatype::named(&datatype).ok_or_else(|| {
        let words = Datatype::ALL.map(Datatype::as_str).join(", ");
        wrong(format!("no datatype {datatype:?}; it is one of {words}"))
    })?;
    if shape.len() > DIMENSIONS_MAX {
        return Err(wrong(format!("over {DIMENSIONS_MAX} dimensions")));
    }
    let shape = shape_of(&shape).map_err(|error| wrong(error.to_string()))?;
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

/// The outputs that a request wants.
pub(super) fn wanted(request: &mut ModelInferRequest) -> Result<Vec<Wanted>, Status> {
    if request.outputs.len() > TENSORS_MAX {
        return Err(bad(format!("at most {TENSORS_MAX} outputs, please; this request has {}", request.outputs.len())));
    }
    let outputs = std::mem::take(&mut request.outputs).into_iter();
    let wanted = outputs.map(|output| {
        if output.parameters.contains_key("shared_memory_region") {
            return Err(bad(format!("output {:?}: tensors in shared memory are not supported", output.name)));
        }
        let classes = output.parameters.get("classification").and_then(whole);
        let classes = classes.and_then(|classes| usize::try_from(classes).ok()).filter(|&classes| classes > 0);
        Ok(Wanted { name: output.name, classes })
    });
    wanted.collect()
}

/// A parameter that is a whole number from 0.
pub(super) fn whole(parameter: &InferParameter) -> Option<u64> {
    match parameter.parameter_choice.as_ref()? {
        ParameterChoice::Int64Param(number) => u64::try_from(*number).ok(),
        ParameterChoice::Uint64Param(number) => Some(*number),
        _ => None,
    }
}

/// An output, without its bytes.
pub(super) fn describe(output: &NamedTensor) -> InferOutputTensor {
    InferOutputTensor {
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
        super::inputs(&mut request).map_err(|status| status.message().to_owned())
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
