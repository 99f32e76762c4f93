//! Hostile numbers in attributes and inputs. That sound ones compute what they should is for `tests/suite/conformance.rs`.

use crate::base::{Datatype, Name, Tensor};
use crate::engine::classical::Classical;
use crate::engine::onnx::fixture::{Given, Message, model, plain_node, value};
use crate::engine::session::{Engine, Fit, Session};
use crate::engine::spec::{LoadSpec, NamedTensor, TensorSpec};

/// A model of one node whose inputs are the model's, with what is given to them.
fn loaded(node: Message, inputs: &[(&str, Tensor)], output: (Datatype, usize)) -> Result<Box<dyn Session>, String> {
    let free = |rank: usize| vec![-1_i64; rank];
    let spec = |name: &str, datatype, rank| TensorSpec { name: name.into(), datatype, shape: free(rank) };
    let ports = inputs.iter().map(|(name, x)| value(name, x.datatype(), &free(x.shape().len()))).collect();
    let spec = LoadSpec {
        inputs: inputs.iter().map(|(name, x)| spec(name, x.datatype(), x.shape().len())).collect(),
        outputs: vec![spec("y", output.0, output.1)],
        allow_non_finite: true,
        ..LoadSpec::new(
            Name::new("hostile").unwrap(),
            1,
            "onnx",
            model(vec![node], ports, vec![value("y", output.0, &free(output.1))]),
        )
    };
    assert_eq!(Classical.suits(&spec), Ok(Fit::Able));
    Classical.load(&spec).map_err(|error| error.to_string())
}

fn run(node: Message, inputs: &[(&str, Tensor)], output: (Datatype, usize)) -> Result<Tensor, String> {
    let session = loaded(node, inputs, output)?;
    let named: Vec<_> = inputs.iter().map(|(name, x)| NamedTensor::new(*name, x.clone())).collect();
    let mut outputs = session.run(&named).map_err(|error| error.to_string())?;
    Ok(outputs.remove(0).tensor)
}

fn floats(shape: &[usize]) -> Tensor {
    let count = shape.iter().product::<usize>();
    Tensor::new(shape, (0..count).map(|at| at as f32).collect::<Vec<_>>()).unwrap()
}

fn wholes(list: &[i64]) -> Tensor {
    Tensor::new([list.len()], list.to_vec()).unwrap()
}

#[test]
fn hostile_numbers_are_errors_that_name_the_node() {
    let image = || ("x", floats(&[1, 1, 3, 3]));
    let huge = i64::MAX;
    let plain = |operator: &str, names: &[&str], given: &[(&str, Given)]| plain_node(operator, names, &["y"], given);
    let list = |list: &[i64]| Given::Wholes(list.to_vec());
    let two = ("x", floats(&[2, 2]));
    type Case<'a> = (Message, Vec<(&'a str, Tensor)>, &'a str);
    let cases: Vec<Case<'_>> = vec![
        (plain("Pad", &["x", "p"], &[]), vec![two.clone(), ("p", wholes(&[huge, 0, 0, 0]))], "pads"),
        (plain("Pad", &["x", "p"], &[]), vec![two.clone(), ("p", wholes(&[1 << 40, 0, 0, 0]))], "larger than"),
        (plain("Tile", &["x", "p"], &[]), vec![two.clone(), ("p", wholes(&[huge, huge]))], "larger than"),
        (plain("Tile", &["x", "p"], &[]), vec![two.clone(), ("p", wholes(&[-1, 1]))], "repeats"),
        (plain("CenterCropPad", &["x", "p"], &[]), vec![two.clone(), ("p", wholes(&[1 << 40, 1]))], "larger than"),
        (plain("Upsample", &["x"], &[("scales", Given::Floats(vec![f32::NAN, 1.0]))]), vec![two.clone()], "scales"),
        (plain("MaxPool", &["x"], &[("kernel_shape", list(&[huge, 1]))]), vec![image()], "kernel_shape"),
        (
            plain("MaxPool", &["x"], &[("kernel_shape", list(&[0, 1]))]),
            vec![image()],
            "kernel, stride or dilation of 0",
        ),
        (plain("MaxPool", &["x"], &[("kernel_shape", list(&[5, 5]))]), vec![image()], "a kernel of 5"),
        (plain("LpPool", &["x"], &[("kernel_shape", list(&[2]))]), vec![image()], "over 2 dimensions"),
        (
            plain(
                "AveragePool",
                &["x"],
                &[("kernel_shape", list(&[1 << 20, 1 << 20])), ("auto_pad", Given::Text("SAME_UPPER"))],
            ),
            vec![image()],
            "a kernel of",
        ),
        (
            plain("MaxUnpool", &["x", "i"], &[("kernel_shape", list(&[2, 2])), ("strides", list(&[2, 2]))]),
            vec![("x", floats(&[1, 1, 1, 1])), ("i", Tensor::new([1, 1, 1, 1], vec![99_i64]).unwrap())],
            "behind the output",
        ),
        (
            plain("Col2Im", &["x", "i", "b"], &[]),
            vec![("x", floats(&[1, 4, 1])), ("i", wholes(&[huge, huge])), ("b", wholes(&[2, 2]))],
            "larger than memory",
        ),
        (
            plain(
                "TfIdfVectorizer",
                &["x"],
                &[("ngram_counts", list(&[7])), ("pool_int64s", list(&[1])), ("ngram_indexes", list(&[0]))],
            ),
            vec![("x", wholes(&[1, 2]))],
            "ngram_counts",
        ),
        (plain("HannWindow", &["n"], &[]), vec![("n", wholes(&[huge]))], "larger than"),
        (
            plain("DFT", &["x", "n"], &[]),
            vec![("x", floats(&[1, 4, 1])), ("n", wholes(&[1 << 24]))],
            "a transform of length",
        ),
        (plain("StringConcat", &["x", "z"], &[]), vec![two.clone(), ("z", floats(&[1]))], "FP32 is not computed"),
        (
            plain("NegativeLogLikelihoodLoss", &["x", "t"], &[]),
            vec![two.clone(), ("t", wholes(&[0, 2]))],
            "label 2 of 2 classes",
        ),
        (plain("GatherElements", &["x", "t"], &[]), vec![("x", floats(&[2])), ("t", wholes(&[0, 2]))], "index 2 of 2"),
        (
            plain("Compress", &["x", "c"], &[]),
            vec![("x", floats(&[1])), ("c", Tensor::new([2], vec![false, true]).unwrap())],
            "condition of 2",
        ),
        (plain("ReverseSequence", &["x", "t"], &[]), vec![two.clone(), ("t", wholes(&[1, 3]))], "not within 0 and 2"),
        (plain("Mod", &["a", "b"], &[]), vec![("a", wholes(&[1])), ("b", wholes(&[0]))], "by zero"),
        (plain("If", &["c"], &[]), vec![("c", wholes(&[1]))], "then_branch is missing"),
    ];
    for (node, inputs, message) in cases {
        let output = (Datatype::Fp32, 2);
        let error = run(node, &inputs, output).expect_err(message);
        assert!(error.contains("node ") && error.contains(message), "{message}: {error}");
    }
}

#[test]
fn a_loop_sees_what_lies_around_it_and_ends_with_its_count() {
    let scalar = |name: &str, datatype| value(name, datatype, &[]);
    let body = Message::default()
        .message(1, plain_node("Add", &["sum", "around"], &["more"], &[]))
        .message(1, plain_node("Identity", &["go"], &["on"], &[]))
        .message(11, scalar("round", Datatype::Int64))
        .message(11, scalar("go", Datatype::Bool))
        .message(11, scalar("sum", Datatype::Fp32))
        .message(12, scalar("on", Datatype::Bool))
        .message(12, scalar("more", Datatype::Fp32));
    let node = || plain_node("Loop", &["n", "", "start"], &["y"], &[("body", Given::Message(6, body.clone()))]);
    let number = |number: f32| Tensor::new([], vec![number]).unwrap();
    let rounds = |count: i64| Tensor::new([], vec![count]).unwrap();
    let inputs = |count| [("n", rounds(count)), ("start", number(1.0)), ("around", number(2.5))];
    assert_eq!(run(node(), &inputs(3), (Datatype::Fp32, 0)).unwrap(), number(8.5));
    assert_eq!(run(node(), &inputs(0), (Datatype::Fp32, 0)).unwrap(), number(1.0));
    let missing = plain_node("Loop", &["n", "", "start"], &["y"], &[("body", Given::Message(6, body.clone()))]);
    let error = run(missing, &inputs(3)[..2], (Datatype::Fp32, 0)).unwrap_err();
    assert!(error.contains("nothing makes its input around"), "{error}");
}

#[test]
fn narrow_numbers_wrap_as_their_type_does_and_what_cannot_be_widened_is_refused() {
    let add = || plain_node("Add", &["a", "b"], &["y"], &[]);
    let bytes = |list: [u8; 2]| Tensor::new([2], list.to_vec()).unwrap();
    let sum = run(add(), &[("a", bytes([250, 1])), ("b", bytes([10, 1]))], (Datatype::Uint8, 1)).unwrap();
    assert_eq!(sum, bytes([4, 2]));
    let large = |number: u64| Tensor::new([1], vec![number]).unwrap();
    let error = run(add(), &[("a", large(u64::MAX)), ("b", large(1))], (Datatype::Uint64, 1)).unwrap_err();
    assert!(error.contains("over 2^63 - 1"), "{error}");
    let less = plain_node("Less", &["a", "b"], &["y"], &[]);
    let truths = run(less, &[("a", bytes([1, 9])), ("b", bytes([2, 2]))], (Datatype::Bool, 1)).unwrap();
    assert_eq!(truths.as_slice::<bool>().unwrap(), [true, false]);
}
