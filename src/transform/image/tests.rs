//! What is refused when a model is loaded, and where pixels come from. The numbers are held against PIL, torchvision's
//! formulas and OpenCV in the suite.

use super::*;
use crate::base::SystemClock;
use crate::transform::config::Limits;

fn build(config: &str, datatype: Datatype, shape: &[i64]) -> Result<Images, String> {
    let config: ImageConfig = toml::from_str(config).map_err(|error| error.message().to_owned())?;
    let port = Port { name: "x".to_owned(), datatype, shape: shape.to_vec(), labels: Vec::new(), unit: None };
    Images::build(config, port).map_err(|error| error.to_string())
}

#[test]
fn steps_that_do_not_give_the_tensor_are_named_when_the_model_is_loaded() {
    let fp32 = Datatype::Fp32;
    for (config, datatype, shape, says) in [
        (
            "",
            fp32,
            &[-1_i64, 3, 224, 224][..],
            "layout Nchw of \"x\": expected what fills [-1, 3, 224, 224], given pictures of any size with 3 channels",
        ),
        (
            "steps = [{ step = \"crop\", width = 224, height = 200 }]",
            fp32,
            &[1, 3, 224, 224],
            "given 224 x 200 with 3 channels",
        ),
        ("colour = \"grey\"", fp32, &[-1, 3, -1, -1], "with 1 channels"),
        ("layout = \"NHWC\"", fp32, &[-1, 3, -1, -1], "layout Nhwc"),
        (
            "layout = \"flat\"\nsteps = [{ step = \"resize\", width = 8, height = 8 }]",
            fp32,
            &[-1, 64],
            "8 x 8 with 3 channels",
        ),
        ("", Datatype::Int64, &[-1, 3, -1, -1], "UINT8, FP16, FP32 or FP64, given INT64"),
        (
            "steps = [{ step = \"normalise\", divide = 255 }]",
            Datatype::Uint8,
            &[-1, 3, -1, -1],
            "a tensor of floats, given UINT8",
        ),
        ("steps = [{ step = \"normalise\", mean = [1, 2] }]", fp32, &[-1, 3, -1, -1], "1 or 3 numbers in mean and std"),
        ("steps = [{ step = \"normalise\", std = [0] }]", fp32, &[-1, 3, -1, -1], "std above 0"),
        (
            "steps = [\"normalise\", { step = \"crop\", width = 1, height = 1 }]",
            fp32,
            &[-1, 3, -1, -1],
            "crop of \"x\": expected no step after normalise",
        ),
        ("steps = [{ step = \"resize\", width = 8 }]", fp32, &[-1, 3, -1, -1], "width and height, or shorter"),
        ("steps = [{ step = \"resize\", shorter = 100000 }]", fp32, &[-1, 3, -1, -1], "width and height, or shorter"),
        (
            "steps = [{ step = \"crop\", width = 16384, height = 16384 }]",
            fp32,
            &[-1, 3, -1, -1],
            "16777216 pixels in all",
        ),
        ("steps = [{ step = \"rezise\", width = 8 }]", fp32, &[-1, 3, -1, -1], "step 1: unknown variant `rezise`"),
        (
            "steps = [{ step = \"resize\", shorter = 8, filter = \"cubic\" }]",
            fp32,
            &[-1, 3, -1, -1],
            "unknown variant `cubic`",
        ),
    ] {
        let error = build(config, datatype, shape).unwrap_err();
        assert!(error.contains(says), "{config}: {error}");
    }
    assert!(
        build(
            "layout = \"flat\"\ncolour = \"grey\"\nsteps = [{ step = \"resize\", width = 8, height = 8 }]",
            fp32,
            &[-1, 64]
        )
        .is_ok()
    );
    assert!(build("steps = [{ step = \"resize\", width = 8, height = 4 }]", fp32, &[3, 4, 8]).is_ok());
}

#[test]
fn a_step_that_would_blow_a_long_picture_up_is_refused() {
    let images = build("steps = [{ step = \"resize\", shorter = 224 }]", Datatype::Fp32, &[-1, 3, -1, -1]).unwrap();
    let line = decode::grey_png(4000, 1, &[7; 4000]).unwrap();
    let (limits, clock) = (Limits { image_pixels_max: 100_000, ..Limits::default() }, SystemClock::new());
    let mut work = Work::new(&limits, &clock, &|| false);
    let error = images.make(&line, "image", &mut work).unwrap_err().to_string();
    assert!(error.contains("has 200704000 pixels, the most is 100000 (predict.image_pixels_max)"), "{error}");
}

#[test]
fn pixels_are_followed_through_every_step() {
    let config = "steps = [{ step = \"resize\", shorter = 50 }, { step = \"crop\", width = 40, height = 40 }]";
    let images = build(config, Datatype::Uint8, &[-1, 3, 40, 40]).unwrap();
    let picture = decode::grey_png(200, 100, &[7; 20_000]).unwrap();
    let (limits, clock) = (Limits::default(), SystemClock::new());
    let mut work = Work::new(&limits, &clock, &|| false);
    let (tensor, geometry) = images.make(&picture, "image", &mut work).unwrap();
    assert_eq!(tensor.shape(), [1, 3, 40, 40]);
    // 200 x 100 became 100 x 50, of which the crop begins at (30, 5).
    assert_eq!(geometry.sent(0.0, 0.0), (60.0, 10.0));
    assert_eq!(geometry.sent(40.0, 40.0), (140.0, 90.0));
    assert_eq!(geometry.input_of(140.0, 90.0), (40.0, 40.0));
    let laps = work.into_laps();
    let steps: Vec<_> = laps.iter().map(|lap| lap.step.as_str()).collect();
    assert_eq!(steps, ["image: decode", "image: resize", "image: crop", "image: tensor"]);
}

#[test]
fn nothing_begins_for_a_caller_who_has_gone() {
    let images = build("", Datatype::Uint8, &[-1, 3, -1, -1]).unwrap();
    let (limits, clock) = (Limits::default(), SystemClock::new());
    let mut work = Work::new(&limits, &clock, &|| true);
    assert_eq!(images.make(b"no picture at all", "image", &mut work).unwrap_err(), Error::Abandoned);
}

#[test]
fn small_files_that_are_large_tensors_are_counted_before_they_are_made() {
    let images =
        build("steps = [{ step = \"resize\", width = 64, height = 64 }]", Datatype::Fp32, &[-1, 3, 64, 64]).unwrap();
    let dot = decode::grey_png(1, 1, &[7]).unwrap();
    let (limits, clock) = (Limits { tensor_bytes_max: 100_000, ..Limits::default() }, SystemClock::new());
    let mut work = Work::new(&limits, &clock, &|| false);
    assert!(images.make(&dot, "image 0", &mut work).is_ok());
    assert!(images.make(&dot, "image 1", &mut work).is_ok());
    let error = images.make(&dot, "image 2", &mut work).unwrap_err().to_string();
    assert!(
        error.contains("image 2 has tensors of 147456 bytes, the most is 100000 (predict.tensor_bytes_max)"),
        "{error}"
    );
}
