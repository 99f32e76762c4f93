//! Files to pixels, within bounds that are checked before anything is decoded.

use std::io::Cursor;

use png::{BitDepth, ColorType, Decoder, Encoder, Limits, Transformations};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::orient::orientation;
use super::picture::Picture;
use crate::transform::error::Error;

/// Refinements of a progressive JPEG; each is a pass over all of it. Cameras write ten.
const SCANS_MAX: usize = 64;

/// Red, green and blue, and the EXIF orientation. Transparency is left out, 16 bits lose the lower 8, as PIL's
/// `convert("RGB")` does.
pub(super) fn decode(bytes: &[u8], at: &str, pixels_max: u64) -> Result<(Picture, u8), Error> {
    if bytes.starts_with(b"\xff\xd8\xff") {
        jpeg(bytes, at, pixels_max)
    } else if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
        decode_png(bytes, at, pixels_max)
    } else {
        let first: String = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let given = if bytes.is_empty() { "nothing".to_owned() } else { format!("bytes that begin {first}") };
        Err(Error::content(at, "a JPEG or PNG", given))
    }
}

fn bounded(width: u64, height: u64, at: &str, most: u64) -> Result<(), Error> {
    if width == 0 || height == 0 {
        return Err(Error::content(at, "a picture", format!("one of {width} x {height} pixels")));
    }
    if width.saturating_mul(height) <= most {
        return Ok(());
    }
    Err(Error::TooLarge {
        what: at.to_owned(),
        given: format!("{width} x {height} pixels"),
        most: format!("{most} in all (predict.image_pixels_max)"),
    })
}

fn jpeg(bytes: &[u8], at: &str, pixels_max: u64) -> Result<(Picture, u8), Error> {
    let torn = |error: &dyn std::fmt::Debug| {
        let text = format!("{error:?}");
        Error::content(at, "a JPEG that can be decoded", format!("a broken one: {}", text.trim_matches('"')))
    };
    let options = DecoderOptions::default()
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .jpeg_set_max_scans(SCANS_MAX)
        .set_strict_mode(true)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(|error| torn(&error))?;
    let info = decoder.info().ok_or_else(|| torn(&"no header"))?;
    let (width, height) = (u32::from(info.width), u32::from(info.height));
    bounded(width.into(), height.into(), at, pixels_max)?;
    let data = decoder.decode().map_err(|error| torn(&error))?;
    let orientation = decoder.exif().map_or(1, |exif| orientation(exif));
    if data.len() != width as usize * height as usize * 3 {
        return Err(torn(&"its colours are not red, green and blue"));
    }
    Ok((Picture { width, height, channels: 3, data }, orientation))
}

fn decode_png(bytes: &[u8], at: &str, pixels_max: u64) -> Result<(Picture, u8), Error> {
    let torn = |error: &dyn std::fmt::Display| {
        Error::content(at, "a PNG that can be decoded", format!("a broken one: {error}"))
    };
    // For what stands beside the pixels, such as texts and colour profiles, which we do not read.
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), Limits { bytes: 8 << 20 });
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder.set_transformations(Transformations::EXPAND | Transformations::STRIP_16);
    let header = decoder.read_header_info().map_err(|error| torn(&error))?;
    let (width, height) = (header.width, header.height);
    bounded(width.into(), height.into(), at, pixels_max)?;
    // A row and its filter need memory, too.
    decoder.set_limits(Limits { bytes: (8 << 20) + width as usize * 64 });
    let mut reader = decoder.read_info().map_err(|error| torn(&error))?;
    let size = reader.output_buffer_size().ok_or_else(|| torn(&"its size is none"))?;
    let mut data = vec![0; size];
    let frame = reader.next_frame(&mut data).map_err(|error| torn(&error))?;
    data.truncate(frame.buffer_size());
    let channels = frame.color_type.samples();
    let data = match frame.color_type {
        ColorType::Rgb => data,
        ColorType::Rgba => data.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect(),
        ColorType::Grayscale | ColorType::GrayscaleAlpha => {
            data.chunks_exact(channels).flat_map(|pixel| [pixel[0]; 3]).collect()
        }
        ColorType::Indexed => return Err(torn(&"its palette was not found")),
    };
    if frame.bit_depth != BitDepth::Eight || data.len() != width as usize * height as usize * 3 {
        return Err(torn(&"its pixels are not what its header says"));
    }
    let orientation = reader.info().exif_metadata.as_ref().map_or(1, |exif| orientation(exif));
    Ok((Picture { width, height, channels: 3, data }, orientation))
}

/// One channel of 8 bits.
pub(super) fn grey_png(width: u32, height: u32, pixels: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut encoder = Encoder::new(&mut bytes, width, height);
    encoder.set_color(ColorType::Grayscale);
    encoder.set_depth(BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    let written = encoder.write_header().and_then(|mut writer| writer.write_image_data(pixels));
    written.map_err(|error| format!("failed to write a PNG: {error}"))?;
    Ok(bytes)
}
