//! Whether a stream can feed a model, and read its score.

use super::config::ModelConfig;
use crate::base::Datatype;
use crate::catalog::Port;

/// Why a stream's model cannot be used as configured.
#[derive(Debug, thiserror::Error)]
pub enum ScorerError {
    /// The model takes several inputs, or none.
    #[error("model {model} takes {} inputs ({}); a stream feeds exactly one", names.len(), names.join(", "))]
    Inputs {
        /// `name/version`.
        model: String,
        /// What it takes.
        names: Vec<String>,
    },
    /// The input is of another element type.
    #[error("input {input} of model {model} is {datatype}; a stream feeds FP32")]
    InputType {
        /// `name/version`.
        model: String,
        /// The input.
        input: String,
        /// Its element type.
        datatype: Datatype,
    },
    /// The features do not fill the model's input.
    #[error(
        "input {input} of model {model} has shape {expected:?} (-1 is any size), and the stream's features are {features} numbers; set window.size and features to fit"
    )]
    Shape {
        /// `name/version`.
        model: String,
        /// The input.
        input: String,
        /// Its shape.
        expected: Vec<i64>,
        /// Numbers a window gives.
        features: usize,
    },
    /// No such output.
    #[error("model {model} has no output {output:?}; it has {outputs}")]
    Output {
        /// `name/version`.
        model: String,
        /// The configured name.
        output: String,
        /// What there is.
        outputs: String,
    },
    /// The output holds no numbers.
    #[error("output {output} of model {model} is {datatype}; a score is a number")]
    OutputType {
        /// `name/version`.
        model: String,
        /// The output.
        output: String,
        /// Its element type.
        datatype: Datatype,
    },
    /// The manifest's statistics do not fit the features.
    #[error("failed to use the normalisation of model {model}")]
    Normalise {
        /// `name/version`.
        model: String,
        /// What does not fit.
        source: crate::signal::Error,
    },
}

/// The input that windows of `features` numbers go to, and the shape that they have there. `model` is its `name/version`; a
/// pipeline is a model as well.
pub fn fit<'a>(
    model: &str,
    inputs: &'a [Port],
    outputs: &[Port],
    wanted: &ModelConfig,
    features: usize,
) -> Result<(&'a Port, Vec<usize>), ScorerError> {
    let model = model.to_owned();
    let names = |ports: &[Port]| ports.iter().map(|port| port.name.clone()).collect::<Vec<_>>();
    let [input] = inputs else { return Err(ScorerError::Inputs { model, names: names(inputs) }) };
    let name = input.name.clone();
    if input.datatype != Datatype::Fp32 {
        return Err(ScorerError::InputType { model, input: name, datatype: input.datatype });
    }
    let Some(shape) = input.sample_shape(features) else {
        return Err(ScorerError::Shape { model, input: name, expected: input.shape.clone(), features });
    };
    let Some(score) = outputs.iter().find(|output| output.name == wanted.score) else {
        let outputs = names(outputs).join(", ");
        return Err(ScorerError::Output { model, output: wanted.score.clone(), outputs });
    };
    if score.datatype == Datatype::Bytes {
        return Err(ScorerError::OutputType { model, output: score.name.clone(), datatype: score.datatype });
    }
    Ok((input, shape))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, datatype: Datatype, shape: &[i64]) -> Port {
        Port { name: name.to_owned(), datatype, shape: shape.to_vec(), unit: None, labels: None }
    }

    #[test]
    fn the_error_says_which_port_does_not_fit_and_what_would() {
        let wanted: ModelConfig = toml::from_str("name = \"press\"").unwrap();
        let (x, score) = (port("x", Datatype::Fp32, &[-1, 4]), port("score", Datatype::Fp32, &[-1, 1]));
        let fit = |inputs: &[Port], outputs: &[Port]| {
            fit("press/1", inputs, outputs, &wanted, 4).map(|(_, shape)| shape).map_err(|error| error.to_string())
        };
        assert_eq!(fit(std::slice::from_ref(&x), std::slice::from_ref(&score)), Ok(vec![1, 4]));
        for (inputs, outputs, says) in [
            (vec![], vec![score.clone()], "model press/1 takes 0 inputs (); a stream feeds exactly one"),
            (vec![x.clone(), port("mask", Datatype::Bool, &[1])], vec![score.clone()], "takes 2 inputs (x, mask)"),
            (
                vec![port("image", Datatype::Uint8, &[1, 4])],
                vec![score.clone()],
                "input image of model press/1 is UINT8; a stream feeds FP32",
            ),
            (
                vec![port("x", Datatype::Fp32, &[-1, 3])],
                vec![score],
                "input x of model press/1 has shape [-1, 3] (-1 is any size), and the stream's features are 4 numbers",
            ),
            (vec![x.clone()], vec![port("p", Datatype::Fp32, &[1])], "press/1 has no output \"score\"; it has p"),
            (
                vec![x],
                vec![port("score", Datatype::Bytes, &[1])],
                "output score of model press/1 is BYTES; a score is a number",
            ),
        ] {
            let error = fit(&inputs, &outputs).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
