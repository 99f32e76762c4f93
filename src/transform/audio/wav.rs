//! RIFF WAVE: PCM of 8, 16, 24 and 32 bits and floats of 32 and 64, mixed to one channel of -1 to 1.

use crate::transform::error::Error;

/// A sound of one channel.
#[derive(Debug)]
pub(super) struct Sound {
    /// Samples a second.
    pub(super) rate: u32,
    /// -1 to 1; floats may lie outside.
    pub(super) samples: Vec<f32>,
}

const PCM: u16 = 1;
const FLOAT: u16 = 3;
const EXTENSIBLE: u16 = 0xfffe;
const CHANNELS_MAX: u16 = 64;

struct Format {
    code: u16,
    channels: usize,
    rate: u32,
    bits: u16,
}

/// Whole numbers are divided by half their range, as librosa and soundfile do; channels are averaged.
pub(super) fn read(bytes: &[u8], at: &str, seconds_max: u32) -> Result<Sound, Error> {
    let wrong = |given: &str| Error::content(at, "a WAV file (PCM of 8, 16, 24 or 32 bits, or floats)", given);
    if bytes.get(..4) != Some(b"RIFF") || bytes.get(8..12) != Some(b"WAVE") {
        let first: String = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        return Err(wrong(&format!("bytes that begin {first}")));
    }
    let (mut rest, mut format) = (&bytes[12..], None);
    loop {
        let Some((head, body)) = rest.split_first_chunk::<8>() else {
            return Err(wrong(if format.is_none() { "one without a format" } else { "one without data" }));
        };
        let announced = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        match (&head[..4], &format) {
            (b"fmt ", None) => {
                format = Some(read_format(body.get(..announced).unwrap_or(body)).map_err(|given| wrong(&given))?)
            }
            (b"data", Some(format)) => {
                // What records to a pipe cannot know the length and writes the largest.
                let data = body.get(..announced).unwrap_or(body);
                return mixed(format, data, at, seconds_max);
            }
            _ => {}
        }
        // Chunks begin at even places.
        rest = body.get(announced.saturating_add(announced & 1)..).unwrap_or(&[]);
    }
}

fn read_format(body: &[u8]) -> Result<Format, String> {
    let short = |at: usize| body.get(at..at + 2).map(|bytes| u16::from_le_bytes([bytes[0], bytes[1]]));
    let short = |at: usize| short(at).ok_or_else(|| "one whose format is torn".to_owned());
    let (mut code, channels, bits) = (short(0)?, short(2)?, short(14)?);
    let rate = u32::from(short(4)?) | u32::from(short(6)?) << 16;
    if code == EXTENSIBLE {
        // The first two bytes of the sub-format's GUID.
        code = short(24)?;
    }
    if channels == 0 || channels > CHANNELS_MAX || rate == 0 {
        return Err(format!("one with {channels} channels and {rate} samples a second"));
    }
    match (code, bits) {
        (PCM, 8 | 16 | 24 | 32) | (FLOAT, 32 | 64) => Ok(Format { code, channels: usize::from(channels), rate, bits }),
        _ => Err(format!("one of format {code} with {bits} bits")),
    }
}

fn mixed(format: &Format, data: &[u8], at: &str, seconds_max: u32) -> Result<Sound, Error> {
    let width = usize::from(format.bits / 8);
    let frames = data.len() / (width * format.channels);
    if frames as u64 > u64::from(format.rate) * u64::from(seconds_max) {
        return Err(Error::TooLarge {
            what: at.to_owned(),
            given: format!("{} seconds", frames as u64 / u64::from(format.rate)),
            most: format!("{seconds_max} seconds (predict.audio_seconds_max)"),
        });
    }
    let sample = |bytes: &[u8]| -> f32 {
        match (format.code, bytes) {
            (PCM, &[a]) => (f32::from(a) - 128.0) / 128.0,
            (PCM, &[a, b]) => f32::from(i16::from_le_bytes([a, b])) / 32_768.0,
            (PCM, &[a, b, c]) => (i32::from_le_bytes([0, a, b, c]) >> 8) as f32 / 8_388_608.0,
            (PCM, &[a, b, c, d]) => (f64::from(i32::from_le_bytes([a, b, c, d])) / 2_147_483_648.0) as f32,
            (_, &[a, b, c, d]) => f32::from_le_bytes([a, b, c, d]),
            (_, &[a, b, c, d, e, f, g, h]) => f64::from_le_bytes([a, b, c, d, e, f, g, h]) as f32,
            _ => 0.0,
        }
    };
    let frame = |frame: &[u8]| {
        let sum: f32 = frame.chunks_exact(width).map(sample).sum();
        sum / format.channels as f32
    };
    let samples: Vec<f32> = data.chunks_exact(width * format.channels).map(frame).collect();
    if samples.is_empty() {
        return Err(Error::content(at, "a sound", "a WAV file without samples"));
    }
    match samples.iter().position(|sample| !sample.is_finite()) {
        None => Ok(Sound { rate: format.rate, samples }),
        Some(place) => Err(Error::content(at, "finite samples", format!("{} at {place}", samples[place]))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wav(code: u16, channels: u16, bits: u16, data: &[u8]) -> Vec<u8> {
        let mut file = b"RIFF\0\0\0\0WAVEJUNK\x03\0\0\0abc\0fmt ".to_vec();
        let extensible = code == EXTENSIBLE;
        file.extend((if extensible { 40_u32 } else { 16 }).to_le_bytes());
        file.extend(code.to_le_bytes());
        file.extend(channels.to_le_bytes());
        file.extend(8000_u32.to_le_bytes());
        file.extend([0; 6]);
        file.extend(bits.to_le_bytes());
        if extensible {
            file.extend([22, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
            file.extend([0; 14]);
        }
        file.extend(b"data");
        file.extend((data.len() as u32).to_le_bytes());
        file.extend(data);
        file
    }

    #[test]
    fn every_sample_format_means_the_same_half() {
        for (code, bits, data) in [
            (PCM, 8, vec![192_u8]),
            (PCM, 16, 16_384_i16.to_le_bytes().to_vec()),
            (EXTENSIBLE, 16, 16_384_i16.to_le_bytes().to_vec()),
            (PCM, 24, vec![0, 0, 0x40]),
            (PCM, 32, (1_i32 << 30).to_le_bytes().to_vec()),
            (FLOAT, 32, 0.5_f32.to_le_bytes().to_vec()),
            (FLOAT, 64, 0.5_f64.to_le_bytes().to_vec()),
        ] {
            let sound = read(&wav(code, 1, bits, &data), "audio", 1).unwrap();
            assert_eq!((sound.rate, sound.samples.as_slice()), (8000, &[0.5][..]), "{code} {bits}");
        }
        let stereo = [16_384_i16, -8_192, -32_768, 0].map(i16::to_le_bytes).concat();
        assert_eq!(read(&wav(PCM, 2, 16, &stereo), "audio", 1).unwrap().samples, [0.125, -0.5]);
        let negative = vec![0, 0, 0x80];
        assert_eq!(read(&wav(PCM, 1, 24, &negative), "audio", 1).unwrap().samples, [-1.0]);
    }

    #[test]
    fn what_is_no_sound_is_told_and_torn_files_never_panic() {
        let whole = wav(PCM, 1, 16, &[0; 64]);
        for (bytes, says) in [
            (b"OggS".to_vec(), "bytes that begin 4f676753"),
            (wav(PCM, 1, 12, &[0; 4]), "one of format 1 with 12 bits"),
            (wav(7, 1, 8, &[0; 4]), "one of format 7 with 8 bits"),
            (wav(PCM, 0, 16, &[0; 4]), "one with 0 channels"),
            (wav(PCM, 1, 16, &[]), "without samples"),
            (wav(FLOAT, 1, 32, &f32::NAN.to_le_bytes()), "NaN at 0"),
            (wav(PCM, 1, 16, &[0; 32_002]), "2 seconds, the most is 1 seconds (predict.audio_seconds_max)"),
        ] {
            let error = read(&bytes, "audio", if says.contains("2 seconds") { 1 } else { 60 });
            let error = error.map(|sound| sound.samples.len()).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        }
        for length in 0..whole.len() {
            let _ = read(&whole[..length], "audio", 1);
        }
        let mut endless = whole.clone();
        let at = endless.len() - 68;
        endless[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(read(&endless, "audio", 1).unwrap().samples.len(), 32);
    }
}
