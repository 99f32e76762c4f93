//! How many tokens a text has, as far as that can be said without the model's own vocabulary.
//!
//! The estimate serves reservations before a call and the usage of an answer that broke off; whoever bills by it is
//! told that it is one. It counts bytes by class, many at a time, so a long prompt costs nanoseconds a line.

/// Tokens that an image is taken for, whatever its size: a picture of 1,000 x 1,000 pixels is about 1,300 tokens for
/// Anthropic ((width x height) / 750) and 765 for OpenAI (85 + 170 a tile of 512 x 512).
pub(crate) const TOKENS_PER_IMAGE: u64 = 1_300;
/// Tokens that a recording or a document is taken for.
pub(crate) const TOKENS_PER_FILE: u64 = 2_000;
/// Tokens around a message: its role and the marks before and after it.
pub(crate) const TOKENS_PER_MESSAGE: u64 = 4;

// Thousandths of a token per character of a class: fitted to 32 texts in 18 languages, code, JSON, logs and tables, counted with
// the vocabulary o200k (gpt-tokenizer 3), so that the sum is rather too high than too low. Of o200k's count it is 15 % too low
// (hexadecimal digits) to 60 % too high (Hindi); prose in Latin letters 6 % too low to 23 % too high, code and JSON 3 % too low to 33 %
// too high, Chinese, Japanese and Korean 25 to 33 % too high. Older vocabularies (cl100k) take up to twice as many tokens for
// scripts other than Latin as o200k, and there it is up to 57 % too low. One sentence by itself may be a quarter too low (Polish).
const LETTER: u64 = 235;
const DIGIT: u64 = 650;
const MARK: u64 = 500;
/// U+0080 to U+01FF: letters with accents, of languages whose other letters are Latin. They break words apart.
const ACCENTED: u64 = 1_200;
const TWO_BYTES: u64 = 450;
/// U+0800 to U+0FFF: scripts of India, Thai, Lao, Tibetan.
const INDIC: u64 = 600;
const THREE_BYTES: u64 = 1_000;
const FOUR_BYTES: u64 = 2_500;

/// The characters of a text by class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TextCount {
    letters: u64,
    digits: u64,
    marks: u64,
    accented: u64,
    two_bytes: u64,
    indic: u64,
    three_bytes: u64,
    four_bytes: u64,
}

impl TextCount {
    /// Adds the characters of `text`.
    pub(crate) fn add(&mut self, text: &str) {
        // Sums of one byte hold 255; so the loop inside has no wider numbers and the compiler takes it many bytes at a time.
        for part in text.as_bytes().chunks(255) {
            let (mut digits, mut marks, mut tails, mut leads) = (0_u8, 0_u8, 0_u8, 0_u8);
            let (mut accented, mut indic, mut threes, mut fours) = (0_u8, 0_u8, 0_u8, 0_u8);
            for &byte in part {
                digits += u8::from(byte.wrapping_sub(b'0') < 10);
                marks += u8::from(byte.wrapping_sub(0x21) < 0x20)
                    + u8::from(byte.wrapping_sub(0x5b) < 6)
                    + u8::from(byte.wrapping_sub(0x7b) < 4);
                tails += u8::from(byte & 0xc0 == 0x80);
                leads += u8::from(byte >= 0xc0);
                accented += u8::from(byte.wrapping_sub(0xc2) < 6);
                indic += u8::from(byte == 0xe0);
                threes += u8::from(byte & 0xf0 == 0xe0);
                fours += u8::from(byte >= 0xf0);
            }
            self.letters += part.len() as u64 - u64::from(marks) - u64::from(tails) - u64::from(leads);
            self.digits += u64::from(digits);
            self.marks += u64::from(marks - digits);
            self.accented += u64::from(accented);
            self.two_bytes += u64::from(leads - threes - fours - accented);
            self.indic += u64::from(indic);
            self.three_bytes += u64::from(threes - indic);
            self.four_bytes += u64::from(fours);
        }
    }

    /// Whether nothing was added.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Characters, whatever their class.
    pub(crate) fn characters(&self) -> u64 {
        let ascii = self.letters + self.digits + self.marks;
        ascii + self.accented + self.two_bytes + self.indic + self.three_bytes + self.four_bytes
    }

    /// The estimate, rounded up.
    pub(crate) fn tokens(&self) -> u64 {
        (self.letters * LETTER
            + self.digits * DIGIT
            + self.marks * MARK
            + self.accented * ACCENTED
            + self.two_bytes * TWO_BYTES
            + self.indic * INDIC
            + self.three_bytes * THREE_BYTES
            + self.four_bytes * FOUR_BYTES)
            .div_ceil(1_000)
    }
}

/// The estimate for one text.
pub fn estimate_tokens(text: &str) -> u64 {
    let mut count = TextCount::default();
    count.add(text);
    count.tokens()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_character_is_counted_once() {
        let text = "Grüße 7, 世界! да กา 🙂 ".repeat(97);
        let mut count = TextCount::default();
        count.add(&text);
        assert_eq!(count.characters(), text.chars().count() as u64);
        assert_eq!((count.accented, count.two_bytes, count.indic), (2 * 97, 2 * 97, 2 * 97));
        assert_eq!((count.three_bytes, count.four_bytes), (2 * 97, 97));
        assert_eq!((count.digits, count.marks), (97, 2 * 97));
    }

    #[test]
    fn parts_add_up_to_the_whole() {
        let mut parts = TextCount::default();
        parts.add("The pump at ");
        parts.add("line 4 is hot.");
        let mut whole = TextCount::default();
        whole.add("The pump at line 4 is hot.");
        assert_eq!(parts, whole);
    }

    #[test]
    fn nothing_has_no_tokens_and_a_letter_has_one() {
        assert_eq!(estimate_tokens(""), 0);
        assert_eq!(estimate_tokens("a"), 1);
    }

    /// Beside each text what o200k counts.
    #[test]
    fn the_estimate_is_near_what_a_vocabulary_counts() {
        for (text, counted) in [
            ("The pump at line four has been running hot since yesterday evening.", 13),
            ("Die Pumpe an Linie vier läuft seit gestern Abend heiß.", 12),
            ("La pompe de la ligne quatre chauffe depuis hier soir.", 11),
            ("Pompa na linii czwartej przegrzewa się od wczorajszego wieczora.", 23),
            ("Dördüncü hattaki pompa dün akşamdan beri ısınıyor.", 17),
            ("Насос на четвёртой линии греется со вчерашнего вечера.", 19),
            ("Η αντλία στη γραμμή τέσσερα θερμαίνεται από χθες το βράδυ.", 24),
            ("المضخة في الخط الرابع ساخنة منذ مساء أمس.", 12),
            ("चौथी लाइन का पंप कल शाम से गरम हो रहा है।", 17),
            ("四号线的水泵从昨天晚上开始一直发热。", 15),
            ("四番ラインのポンプは昨日の夕方から発熱しています。", 16),
            ("4번 라인의 펌프가 어제 저녁부터 뜨거워지고 있습니다.", 20),
            (r#"{"n":17,"time":1795000000,"value":73.967,"unit":"mm/s"}"#, 23),
            ("fn main() -> ExitCode {\n    forebay::app::main()\n}\n", 16),
            ("2013-12-02 21:15:00,73.96732207\n2013-12-02 21:20:00,74.93588199", 37),
        ] {
            let percent = estimate_tokens(text) * 100 / counted;
            assert!((70..=165).contains(&percent), "{percent} % of {counted} for {text}");
        }
    }
}
