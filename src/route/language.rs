//! Guesses at a text: its language, and whether it is about code.

use std::collections::HashMap;
use std::sync::LazyLock;

/// Bytes at the beginning of a text that are looked at.
pub const LOOK_BYTES: usize = 1024;

/// With fewer words that say something there is no guess.
const HITS_MIN: u32 = 2;
/// So many more than of any other language are enough.
const LEAD_CLEAR: u32 = 6;

/// ISO 639-1 codes that [`guess_language`] may answer.
pub const LANGUAGES: [&str; 23] = [
    "en", "de", "fr", "es", "it", "pt", "nl", "pl", "sv", "da", "cs", "tr", // by their small words
    "zh", "ja", "ko", "ru", "uk", "ar", "he", "el", "hi", "th", "ka", // by their script
];

/// How many of [`LANGUAGES`] are told apart by words.
const BY_WORDS: usize = 12;

/// Small words that are frequent in one language, in the order of [`LANGUAGES`]. A word of several languages stands in
/// each: it speaks for all of them, and another one decides.
const WORDS: [&[&str]; BY_WORDS] = [
    &[
        "the", "and", "is", "of", "to", "in", "what", "how", "this", "that", "with", "for", "are", "you", "it", "not",
        "please", "why", "does", "my",
    ],
    &[
        "der", "die", "das", "und", "ist", "nicht", "ein", "eine", "wie", "was", "mit", "für", "auf", "ich", "zu",
        "von", "bitte", "warum", "den", "dem",
    ],
    &[
        "le", "la", "les", "et", "est", "une", "des", "pour", "dans", "que", "qui", "pas", "avec", "sur", "je", "vous",
        "pourquoi", "comment", "du", "ce",
    ],
    &[
        "el", "la", "los", "las", "y", "es", "una", "que", "para", "con", "por", "cómo", "qué", "no", "del", "se",
        "está", "un", "en", "lo",
    ],
    &[
        "il", "la", "che", "di", "è", "e", "una", "per", "con", "non", "come", "sono", "del", "della", "gli", "perché",
        "un", "questo", "cosa", "mi",
    ],
    &[
        "o", "a", "os", "que", "é", "e", "uma", "para", "com", "não", "do", "da", "em", "como", "um", "por", "você",
        "está", "se", "isso",
    ],
    &[
        "de", "het", "een", "en", "is", "van", "niet", "dat", "wat", "hoe", "met", "voor", "ik", "op", "zijn", "aan",
        "waarom", "deze", "je", "te",
    ],
    &[
        "i", "w", "nie", "na", "to", "jest", "że", "się", "z", "jak", "co", "do", "dla", "czy", "proszę", "dlaczego",
        "o", "są", "przez", "jestem",
    ],
    &[
        "och", "att", "det", "är", "en", "ett", "som", "på", "inte", "för", "med", "hur", "vad", "jag", "av", "den",
        "till", "varför", "kan", "du",
    ],
    &[
        "og", "at", "det", "er", "en", "et", "som", "på", "ikke", "for", "med", "hvordan", "hvad", "jeg", "af", "den",
        "til", "hvorfor", "kan", "du",
    ],
    &[
        "a", "je", "se", "na", "to", "že", "v", "s", "jak", "co", "není", "pro", "jsem", "nebo", "prosím", "proč",
        "jsou", "z", "do", "ale",
    ],
    &[
        "ve", "bir", "bu", "için", "ile", "ne", "nasıl", "değil", "mi", "mı", "da", "de", "çok", "var", "neden",
        "lütfen", "olarak", "ben", "gibi", "daha",
    ],
];

/// For each word of [`WORDS`] a bit for each language that has it; made by the first route that asks.
static LANGUAGES_OF: LazyLock<HashMap<&'static str, u16>> = LazyLock::new(|| {
    let mut languages_of = HashMap::new();
    for (at, words) in WORDS.iter().enumerate() {
        words.iter().for_each(|word| *languages_of.entry(*word).or_default() |= 1 << at);
    }
    languages_of
});

/// The beginning of a text, cut between two characters.
fn beginning(text: &str) -> &str {
    &text[..text.floor_char_boundary(LOOK_BYTES)]
}

/// The language of a text by its script, or by the small words in it; none if too little speaks for one. A guess over
/// the first [`LOOK_BYTES`], good enough to choose a model and for nothing else.
pub fn guess_language(text: &str) -> Option<&'static str> {
    let text = beginning(text);
    if !text.is_ascii()
        && let Some(found) = by_script(text)
    {
        return Some(found);
    }
    let mut hits = [0_u32; BY_WORDS];
    let words = text.split(|c: char| !c.is_alphabetic()).filter(|word| !word.is_empty() && word.len() <= 12);
    for languages in words.filter_map(|word| LANGUAGES_OF.get(Lowered::new(word).as_str())) {
        hits.iter_mut().enumerate().for_each(|(at, hits)| *hits += u32::from(languages >> at & 1));
        // A long text need not be read to its end.
        if let Some(leader) = leader(&hits, LEAD_CLEAR) {
            return Some(leader);
        }
    }
    leader(&hits, 1).filter(|_| hits.iter().any(|hits| *hits >= HITS_MIN))
}

/// The language that has at least `lead` hits more than any other.
fn leader(hits: &[u32; BY_WORDS], lead: u32) -> Option<&'static str> {
    let (at, most) = hits.iter().enumerate().max_by_key(|(_, hits)| **hits)?;
    let clear = hits.iter().enumerate().all(|(other, hits)| other == at || hits + lead <= *most);
    clear.then_some(LANGUAGES[at])
}

/// A short word in lower case, without a place on the heap.
struct Lowered {
    bytes: [u8; 24],
    length: usize,
}

impl Lowered {
    fn new(word: &str) -> Self {
        let mut lowered = Self { bytes: [0; 24], length: 0 };
        for c in word.chars().flat_map(char::to_lowercase) {
            let end = lowered.length + c.len_utf8();
            let Some(room) = lowered.bytes.get_mut(lowered.length..end) else { break };
            c.encode_utf8(room);
            lowered.length = end;
        }
        lowered
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.length]).unwrap_or("")
    }
}

/// By the script of most letters, where a script is one language's, or nearly.
fn by_script(text: &str) -> Option<&'static str> {
    let (mut latin, mut han, mut kana, mut hangul, mut cyrillic, mut ukrainian) = (0, 0, 0, 0, 0, 0);
    let mut others = [0_u32; 6];
    for c in text.chars() {
        match c {
            'a'..='z' | 'A'..='Z' | '\u{c0}'..='\u{24f}' => latin += 1,
            '\u{3040}'..='\u{30ff}' => kana += 1,
            '\u{3400}'..='\u{9fff}' => han += 1,
            '\u{1100}'..='\u{11ff}' | '\u{ac00}'..='\u{d7af}' => hangul += 1,
            'і' | 'ї' | 'є' | 'ґ' | 'І' | 'Ї' | 'Є' | 'Ґ' => {
                ukrainian += 1;
                cyrillic += 1;
            }
            '\u{400}'..='\u{52f}' => cyrillic += 1,
            '\u{600}'..='\u{6ff}' => others[0] += 1,
            '\u{590}'..='\u{5ff}' => others[1] += 1,
            '\u{370}'..='\u{3ff}' => others[2] += 1,
            '\u{900}'..='\u{97f}' => others[3] += 1,
            '\u{e00}'..='\u{e7f}' => others[4] += 1,
            '\u{10a0}'..='\u{10ff}' => others[5] += 1,
            _ => {}
        }
    }
    // A Han or Hangul character is worth some letters.
    let cjk = 3 * (han + kana + hangul);
    let ours = [
        ("ar", others[0]),
        ("he", others[1]),
        ("el", others[2]),
        ("hi", others[3]),
        ("th", others[4]),
        ("ka", others[5]),
    ];
    let slavic = if ukrainian * 50 > cyrillic { "uk" } else { "ru" };
    let east = if kana > 0 && hangul == 0 {
        "ja"
    } else if hangul > han {
        "ko"
    } else {
        "zh"
    };
    let (language, most) = ours.into_iter().chain([(slavic, cyrillic), (east, cjk)]).max_by_key(|(_, count)| *count)?;
    (most > latin && most >= 2).then_some(language)
}

/// Whether a text has source code in it or asks for some: a fenced block, or several of the marks that prose lacks.
/// A guess, like the language.
pub fn looks_like_code(text: &str) -> bool {
    const MARKS: [&str; 14] = [
        "();", "{\n", "};", "=>", "->", "def ", "fn ", "import ", "#include", "SELECT ", "return ", "class ", "</",
        "==",
    ];
    let text = beginning(text);
    text.contains("```") || MARKS.iter().filter(|mark| text.contains(**mark)).count() >= 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_known_by_their_language() {
        for (language, text) in [
            ("en", "What is the temperature of the press, and why does it rise?"),
            ("de", "Wie hoch ist die Temperatur der Presse, und warum steigt sie?"),
            ("fr", "Quelle est la température de la presse et pourquoi monte-t-elle dans la nuit ?"),
            ("es", "¿Cuál es la temperatura de la prensa y por qué sube con el turno?"),
            ("it", "Qual è la temperatura della pressa e perché non scende?"),
            ("pt", "Qual é a temperatura da prensa e por que não desce com você?"),
            ("nl", "Wat is de temperatuur van de pers en waarom stijgt het niet?"),
            ("pl", "Jaka jest temperatura prasy i dlaczego nie spada?"),
            ("sv", "Vad är temperaturen och varför stiger den inte?"),
            ("da", "Hvad er temperaturen, og hvorfor stiger den ikke?"),
            ("cs", "Jak je na tom lis a proč není v provozu?"),
            ("tr", "Presin sıcaklığı ne ve neden çok yükseliyor, lütfen bu bir hata mı?"),
            ("zh", "压力机的温度是多少？为什么会上升？"),
            ("ja", "プレスの温度はいくつですか。なぜ上がるのですか。"),
            ("ko", "프레스의 온도는 얼마입니까? 왜 올라갑니까?"),
            ("ru", "Какая температура у пресса и почему она растёт?"),
            ("uk", "Яка температура преса і чому вона підвищується?"),
            ("ar", "ما هي درجة حرارة المكبس ولماذا ترتفع؟"),
            ("he", "מהי הטמפרטורה של המכבש?"),
            ("el", "Ποια είναι η θερμοκρασία της πρέσας;"),
            ("hi", "प्रेस का तापमान क्या है?"),
            ("th", "อุณหภูมิของเครื่องอัดเท่าไร"),
            ("ka", "რა არის პრესის ტემპერატურა?"),
        ] {
            assert_eq!(guess_language(text), Some(language), "{text}");
            assert!(LANGUAGES.contains(&language));
        }
    }

    #[test]
    fn what_says_nothing_is_no_language() {
        for text in ["", "   ", "42 17.5", "kubectl get pods", "xyzzy", "GPU A100 80GB", "la"] {
            assert_eq!(guess_language(text), None, "{text}");
        }
    }

    #[test]
    fn hostile_texts_are_cut_and_never_split_a_character() {
        let long = format!("{}ä", "x".repeat(LOOK_BYTES - 1)).repeat(1000);
        assert_eq!(guess_language(&long), None);
        assert_eq!(guess_language(&"\u{1f600}".repeat(100_000)), None);
        assert!(!looks_like_code(&long));
        // Lower case may be longer than upper case.
        assert_eq!(guess_language("İİİİİİ İİİİİİ"), None);
    }

    #[test]
    fn code_is_told_from_prose() {
        assert!(looks_like_code("Why does this fail?\n```rust\nfn main() {}\n```"));
        assert!(looks_like_code("def f(x):\n    import os\n    return x == 1"));
        assert!(!looks_like_code("Please return the class list to the office."));
        assert!(!looks_like_code(""));
    }
}
