//! What a decoder looks like, by its file's metadata, believed only within bounds.

use super::gguf::{Gguf, Value};

/// Which elements of a head are turned together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rotation {
    /// Neighbours.
    Pairs,
    /// Those half a head apart.
    Halves,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings {
    pub(super) rotation: Rotation,
    /// Queries and keys have a norm of their own.
    pub(super) norms_heads: bool,
    pub(super) vocabulary: usize,
    pub(super) hidden: usize,
    pub(super) layers: usize,
    pub(super) inner: usize,
    pub(super) heads: usize,
    /// Heads of keys and values, which several heads of queries share.
    pub(super) groups: usize,
    /// Of a head.
    pub(super) width: usize,
    /// Elements of a head that are turned.
    pub(super) turned: usize,
    pub(super) base: f32,
    /// Places are divided by it.
    pub(super) stretch: f32,
    pub(super) epsilon: f32,
    /// The most tokens that it was made for.
    pub(super) context: usize,
}

const ARCHITECTURES: [(&str, Rotation, bool); 3] =
    [("llama", Rotation::Pairs, false), ("qwen2", Rotation::Halves, false), ("qwen3", Rotation::Halves, true)];

impl Settings {
    pub(super) fn of(gguf: &Gguf) -> Result<Self, String> {
        let Some(Value::Text(name)) = gguf.metadata.get("general.architecture") else {
            return Err("general.architecture: expected a name, given none".to_owned());
        };
        let known = ARCHITECTURES.iter().find(|(known, _, _)| known == name);
        let Some(&(_, rotation, norms_heads)) = known else {
            let known = ARCHITECTURES.map(|(name, _, _)| name).join(", ");
            return Err(format!("general.architecture is {name}, expected one of {known}"));
        };
        let read = Read { gguf, architecture: name };
        let (hidden, heads) =
            (read.size("embedding_length", None, 1 << 16)?, read.size("attention.head_count", None, 1024)?);
        let groups = read.size("attention.head_count_kv", Some(heads), 1024)?;
        if !heads.is_multiple_of(groups) {
            return Err(format!(
                "{name}.attention.head_count is {heads}, expected a multiple of its {groups} for keys"
            ));
        }
        let width = read.size("attention.key_length", Some(hidden / heads), 4096)?;
        let values = read.size("attention.value_length", Some(width), 4096)?;
        if values != width {
            return Err(format!("{name}.attention.value_length is {values}, expected {width} as of keys"));
        }
        let turned = read.size("rope.dimension_count", Some(width), width)?;
        if !turned.is_multiple_of(2) {
            return Err(format!("{name}.rope.dimension_count is {turned}, expected an even number"));
        }
        if let Some(Value::Whole(experts @ 1..)) = gguf.metadata.get(&format!("{name}.expert_count")) {
            return Err(format!("{name}.expert_count is {experts}, expected a network without experts"));
        }
        let stretch = match gguf.metadata.get(&format!("{name}.rope.scaling.type")) {
            None => 1.0,
            Some(Value::Text(kind)) if kind == "none" => 1.0,
            Some(Value::Text(kind)) if kind == "linear" => read.number("rope.scaling.factor", 1.0, 1.0..=1e6)?,
            Some(other) => return Err(format!("{name}.rope.scaling.type is {other:?}, expected none or linear")),
        };
        let context = read.size("context_length", None, 1 << 24)?;
        // Within its window a network that forgets is one that does not.
        let window = read.size("attention.sliding_window", Some(context), 1 << 24)?;
        let vocabulary = gguf.tensors.get("token_embd.weight").and_then(|entry| entry.shape.first().copied());
        let vocabulary = vocabulary.ok_or("tensor token_embd.weight: expected one, given none")?;
        Ok(Self {
            rotation,
            norms_heads,
            vocabulary,
            hidden,
            layers: read.size("block_count", None, 1024)?,
            inner: read.size("feed_forward_length", None, 1 << 20)?,
            heads,
            groups,
            width,
            turned,
            base: read.number("rope.freq_base", 10_000.0, 1.0..=1e12)?,
            stretch,
            epsilon: read.number("attention.layer_norm_rms_epsilon", 1e-5, 0.0..=1.0)?,
            context: context.min(window),
        })
    }

    /// Floats of a token's keys in a layer.
    pub(super) fn key_width(&self) -> usize {
        self.groups * self.width
    }
}

struct Read<'a> {
    gguf: &'a Gguf,
    architecture: &'a str,
}

impl Read<'_> {
    fn get(&self, key: &str) -> (String, Option<&Value>) {
        let key = format!("{}.{key}", self.architecture);
        let value = self.gguf.metadata.get(&key);
        (key, value)
    }

    fn size(&self, key: &str, usual: Option<usize>, most: usize) -> Result<usize, String> {
        match (self.get(key), usual) {
            // Zero is how some writers say that there is none.
            ((_, None | Some(Value::Whole(0))), Some(usual)) if (1..=most).contains(&usual) => Ok(usual),
            ((key, value), _) => {
                let number = match value {
                    Some(Value::Whole(number)) => {
                        usize::try_from(*number).ok().filter(|size| (1..=most).contains(size))
                    }
                    _ => None,
                };
                number.ok_or_else(|| format!("{key} is {value:?}, expected a whole number of 1 to {most}"))
            }
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "it is computed with in 32 bits")]
    fn number(&self, key: &str, usual: f32, range: std::ops::RangeInclusive<f64>) -> Result<f32, String> {
        match self.get(key) {
            (_, None) => Ok(usual),
            (_, Some(Value::Float(number))) if range.contains(number) => Ok(*number as f32),
            (key, Some(other)) => Err(format!("{key} is {other:?}, expected {} to {}", range.start(), range.end())),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::engine::transformer::decoder::gguf::tests::{float, text, whole, written};

    type Metadata = Vec<(&'static str, (u32, Vec<u8>))>;

    pub(in crate::engine::transformer) fn tiny() -> Metadata {
        vec![
            ("general.architecture", text("llama")),
            ("llama.block_count", whole(2)),
            ("llama.embedding_length", whole(8)),
            ("llama.feed_forward_length", whole(12)),
            ("llama.attention.head_count", whole(4)),
            ("llama.attention.head_count_kv", whole(2)),
            ("llama.context_length", whole(16)),
        ]
    }

    fn with(key: &'static str, value: (u32, Vec<u8>)) -> Result<Settings, String> {
        let mut metadata = tiny();
        metadata.retain(|(known, _)| *known != key);
        metadata.push((key, value));
        Settings::of(&Gguf::read(&written(&metadata, &[("token_embd.weight", 0, &[3, 8], vec![0; 96])])).unwrap())
    }

    #[test]
    fn what_a_file_leaves_out_is_what_the_family_has() {
        let settings = with("llama.rope.freq_base", float(5e5)).unwrap();
        assert_eq!((settings.vocabulary, settings.width, settings.turned, settings.context), (3, 2, 2, 16));
        assert_eq!((settings.base, settings.stretch, settings.key_width()), (5e5, 1.0, 4));
        assert_eq!(with("llama.attention.sliding_window", whole(9)).unwrap().context, 9);
        assert_eq!(with("llama.attention.sliding_window", whole(0)).unwrap().context, 16);
    }

    #[test]
    fn what_is_not_computed_or_out_of_bounds_is_named_with_what_would_be_right() {
        for (key, value, says) in [
            (
                "general.architecture",
                text("mamba"),
                "general.architecture is mamba, expected one of llama, qwen2, qwen3",
            ),
            ("general.architecture", whole(1), "expected a name"),
            (
                "llama.block_count",
                whole(0),
                "llama.block_count is Some(Whole(0)), expected a whole number of 1 to 1024",
            ),
            ("llama.embedding_length", whole(u32::MAX), "expected a whole number of 1 to 65536"),
            ("llama.embedding_length", float(8.0), "llama.embedding_length is Some(Float(8.0))"),
            ("llama.attention.head_count_kv", whole(3), "expected a multiple of its 3 for keys"),
            ("llama.attention.value_length", whole(7), "llama.attention.value_length is 7, expected 2"),
            ("llama.rope.dimension_count", whole(1), "expected an even number"),
            ("llama.rope.dimension_count", whole(64), "expected a whole number of 1 to 2"),
            ("llama.rope.scaling.type", text("yarn"), "expected none or linear"),
            ("llama.rope.freq_base", float(f32::NAN), "expected 1 to 1000000000000"),
            ("llama.expert_count", whole(8), "expected a network without experts"),
        ] {
            let error = with(key, value).unwrap_err();
            assert!(error.contains(says), "{error}: {says}");
        }
    }
}
