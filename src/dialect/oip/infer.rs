//! `infer`: texts in, vectors out.

use serde_json::value::{RawValue, to_raw_value};

use super::OipModel;
use crate::dialect::json::{self, Members, Raw, Sort, sort};
use crate::dialect::write::{Array, Object, number};

/// Writes a request with `texts`, which are between their quotes.
pub(crate) fn write_texts(texts: &[String], model: &OipModel<'_>, out: &mut Vec<u8>) {
    let mut body = Object::new(out);
    if let Some(parameters) = model.parameters.filter(|parameters| !parameters.is_empty()) {
        let mut to = body.object("parameters");
        parameters.iter().for_each(|(name, value)| to.json(name, &value.to_string()));
    }
    {
        let mut inputs = body.array("inputs");
        let mut input = inputs.object();
        input.text("name", model.input);
        {
            let mut shape = input.array("shape");
            number(shape.element(), texts.len() as u64);
            if model.column {
                number(shape.element(), 1);
            }
        }
        input.text("datatype", "BYTES");
        let mut data = input.array("data");
        texts.iter().for_each(|text| quoted(&mut data, text));
    }
    if let Some(output) = model.output {
        body.array("outputs").object().text("name", output);
    }
}

fn quoted(to: &mut Array<'_>, inner: &str) {
    let out = to.element();
    out.push(b'"');
    out.extend_from_slice(inner.as_bytes());
    out.push(b'"');
}

/// The vectors of an answer, one for each of `texts`, cut to `dimensions` where they are given. The error says what could
/// not be read.
pub(crate) fn vectors(
    answer: &Members<'_>,
    output: Option<&str>,
    texts: usize,
    dimensions: Option<u64>,
) -> Result<Vec<Box<RawValue>>, &'static str> {
    let outputs = answer.get("outputs").ok_or("outputs")?;
    let is_it = |tensor: &Members<'_>| match output {
        Some(name) => tensor.text("name").as_deref() == Some(name),
        None => tensor.text("datatype").is_some_and(|datatype| datatype.contains("FP") || datatype == "BF16"),
    };
    let tensor = json::lenient_elements(outputs).into_iter().map(Members::lenient).find(is_it);
    let tensor = tensor.ok_or("output with vectors")?;
    let shape = tensor.get("shape").map(json::lenient_elements).unwrap_or_default();
    let shape: Option<Vec<u64>> = shape.into_iter().map(json::whole).collect();
    let width = width(&shape.ok_or("shape of the vectors")?, texts).ok_or("one vector for each text")?;
    let numbers = tensor.get("data").and_then(numbers).ok_or("numbers of a vector")?;
    if width == 0 || numbers.len() != texts.saturating_mul(width) {
        return Err("numbers of a vector");
    }
    numbers.chunks(width).map(|row| vector(row, dimensions)).collect()
}

/// How many numbers a vector has: `[n, d]`, with ones in between, or `[d]` for one text.
fn width(shape: &[u64], texts: usize) -> Option<usize> {
    let (width, before) = shape.split_last()?;
    let rows = match before {
        [] => 1,
        [rows, between @ ..] if between.iter().all(|size| *size == 1) => *rows,
        _ => return None,
    };
    (rows == texts as u64).then(|| usize::try_from(*width).ok()).flatten()
}

/// All numbers in their order, as they were written; arrays in arrays are the same as one.
fn numbers<'a>(data: Raw<'a>) -> Option<Vec<&'a str>> {
    if sort(data) != Sort::Array {
        return None;
    }
    let bare = |piece: &'a str| piece.trim_matches(|c: char| c.is_ascii_whitespace() || matches!(c, '[' | ']'));
    let is_number = |piece: &&str| piece.parse::<f64>().is_ok_and(f64::is_finite);
    data.get().split(',').map(|piece| Some(bare(piece)).filter(is_number)).collect()
}

fn vector(row: &[&str], dimensions: Option<u64>) -> Result<Box<RawValue>, &'static str> {
    let Some(dimensions) = dimensions else {
        return RawValue::from_string(format!("[{}]", row.join(","))).map_err(|_| "numbers of a vector");
    };
    let kept = usize::try_from(dimensions).ok().and_then(|dimensions| row.get(..dimensions));
    let kept: Option<Vec<f64>> = kept.ok_or("vectors as long as asked for")?.iter().map(|n| n.parse().ok()).collect();
    let kept = kept.ok_or("numbers of a vector")?;
    let length = kept.iter().map(|number| number * number).sum::<f64>().sqrt();
    // Nothing has no direction.
    let length = if length > 0.0 { length } else { 1.0 };
    let scaled: Vec<f32> = kept.iter().map(|number| (number / length) as f32).collect();
    to_raw_value(&scaled).map_err(|_| "numbers of a vector")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(
        answer: &Value,
        output: Option<&str>,
        texts: usize,
        dimensions: Option<u64>,
    ) -> Result<Value, &'static str> {
        let text = answer.to_string();
        let vectors = vectors(&Members::parse(text.as_bytes()).unwrap(), output, texts, dimensions)?;
        Ok(vectors.iter().map(|vector| serde_json::from_str::<Value>(vector.get()).unwrap()).collect())
    }

    fn tensor(name: &str, datatype: &str, shape: &Value, data: &Value) -> Value {
        json!({"name": name, "datatype": datatype, "shape": shape, "data": data})
    }

    #[test]
    fn texts_are_one_tensor_of_the_shape_that_the_model_wants() {
        let texts = ["a \\\"b\\\"".to_owned(), "c".to_owned()];
        let written = |model: &OipModel<'_>| {
            let mut out = Vec::new();
            write_texts(&texts, model, &mut out);
            serde_json::from_slice::<Value>(&out).unwrap()
        };
        assert_eq!(
            written(&OipModel::DEFAULT),
            json!({"inputs": [{"name": "text_input", "shape": [2], "datatype": "BYTES", "data": ["a \"b\"", "c"]}]})
        );
        let parameters = [("truncate".to_owned(), json!(true))].into();
        let own = OipModel {
            input: "TEXT",
            output: Some("embedding"),
            column: true,
            parameters: Some(&parameters),
            ..OipModel::DEFAULT
        };
        assert_eq!(
            written(&own),
            json!({"parameters": {"truncate": true}, "outputs": [{"name": "embedding"}],
                "inputs": [{"name": "TEXT", "shape": [2, 1], "datatype": "BYTES", "data": ["a \"b\"", "c"]}]})
        );
    }

    #[test]
    fn vectors_are_read_flat_and_nested_and_by_name() {
        let flat = tensor("y", "FP32", &json!([2, 2]), &json!([0.5, -1, 0.25, 2e-3]));
        let nested = tensor("z", "FP64", &json!([2, 1, 2]), &json!([[[1, 2]], [[3, 4]]]));
        let answer = json!({"outputs": [tensor("tokens", "INT64", &json!([2]), &json!([3, 4])), flat, nested]});
        assert_eq!(read(&answer, None, 2, None).unwrap(), json!([[0.5, -1], [0.25, 0.002]]));
        assert_eq!(read(&answer, Some("z"), 2, None).unwrap(), json!([[1, 2], [3, 4]]));
        let one = json!({"outputs": [tensor("y", "FP32", &json!([3]), &json!([1, 2, 3]))]});
        assert_eq!(read(&one, None, 1, None).unwrap(), json!([[1, 2, 3]]));
    }

    #[test]
    fn a_shortened_vector_has_length_one() {
        let answer = json!({"outputs": [tensor("y", "FP32", &json!([1, 3]), &json!([3, 4, 12]))]});
        assert_eq!(read(&answer, None, 1, Some(2)).unwrap(), json!([[0.6, 0.8]]));
        assert_eq!(read(&answer, None, 1, Some(4)), Err("vectors as long as asked for"));
    }

    #[test]
    fn what_is_not_one_vector_a_text_is_no_answer() {
        let answers = [
            (json!([2, 5, 2]), json!([[1, 2]]), "one vector for each text"),
            (json!([3, 2]), json!([1, 2, 3, 4, 5, 6]), "one vector for each text"),
            (json!([2, 2]), json!([1, 2, 3]), "numbers of a vector"),
            (json!([2, 2]), json!([1, 2, 3, null]), "numbers of a vector"),
            (json!([2, 2]), json!([1, 2, 3, "4"]), "numbers of a vector"),
            (json!([2, 0]), json!([]), "numbers of a vector"),
            (json!([2, -1]), json!([1, 2]), "shape of the vectors"),
            (json!([2, 18446744073709551615_u64]), json!([1, 2]), "numbers of a vector"),
        ];
        for (shape, data, what) in answers {
            let answer = json!({"outputs": [tensor("y", "FP32", &shape, &data)]});
            assert_eq!(read(&answer, None, 2, None), Err(what), "{answer}");
        }
        let words = json!({"outputs": [tensor("y", "BYTES", &json!([2]), &json!(["a", "b"]))]});
        assert_eq!(read(&words, None, 2, None), Err("output with vectors"));
        assert_eq!(read(&json!({"error": "x"}), None, 2, None), Err("outputs"));
    }
}
