//! Whether outputs are what a sample says.

use super::error::Error;
use super::spec::{NamedTensor, Sample};

/// Refuses outputs that differ from those of `sample`, which is the one at place `at` of its manifest.
pub(super) fn check(
    sample: &Sample,
    at: usize,
    outputs: &[NamedTensor],
    model: &str,
    engine: &'static str,
) -> Result<(), Error> {
    for NamedTensor { name, tensor } in &sample.outputs {
        let given = outputs.iter().find(|output| output.name == *name);
        let given = given.and_then(|output| output.tensor.to_numbers()).unwrap_or_default();
        let expected = tensor.to_numbers().unwrap_or_default();
        if given.len() != expected.len() {
            return Err(Error::Declared {
                model: model.to_owned(),
                what: format!("elements of output {name} for sample {}", at + 1),
                expected: expected.len().to_string(),
                given: given.len().to_string(),
            });
        }
        for (element, (&expected, given)) in expected.iter().zip(given).enumerate() {
            // Written so that nan on either side is a difference.
            let close = (given - expected).abs() <= f64::from(sample.tolerance);
            if !close {
                return Err(Error::Sample {
                    model: model.to_owned(),
                    engine,
                    sample: at + 1,
                    output: name.to_string(),
                    at: element,
                    expected,
                    given,
                    tolerance: f64::from(sample.tolerance),
                });
            }
        }
    }
    Ok(())
}
